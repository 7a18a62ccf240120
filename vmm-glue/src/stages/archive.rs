// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Reading apt's index: which kernel versions have everything that the lab needs.

use std::collections::BTreeMap;

/// Packages of one name may exist in several versions.
#[derive(Debug, Default)]
pub struct Index {
    versions: BTreeMap<String, Vec<String>>,
}

/// A kernel that can be had whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// As `uname -r` says it.
    pub release: String,
    /// Debian's version of all its packages.
    pub version: String,
    /// The source package's series, like 7.3.
    pub series: String,
}

impl Choice {
    /// Packages to fetch, with versions.
    pub fn packages(&self) -> Vec<String> {
        let Self {
            release,
            version,
            series,
        } = self;
        ["linux-binary", "linux-modules", "linux-headers"]
            .iter()
            .map(|kind| format!("{kind}-{release}={version}"))
            .chain([format!("linux-source-{series}={version}")])
            .collect()
    }
}

impl Index {
    /// Parses `apt-cache show`.
    pub fn parse(text: &str) -> Self {
        let mut index = Self::default();
        let mut name = "";
        for line in text.lines() {
            if let Some(value) = line.strip_prefix("Package: ") {
                name = value.trim();
            } else if let Some(value) = line.strip_prefix("Version: ") {
                index
                    .versions
                    .entry(name.to_owned())
                    .or_default()
                    .push(value.trim().to_owned());
            }
        }
        index
    }

    fn has(&self, name: &str, version: &str) -> bool {
        self.versions
            .get(name)
            .is_some_and(|versions| versions.iter().any(|found| found == version))
    }

    /// The newest kernel that is whole and whose version begins with the numbers of this one, or what is missing.
    pub fn choose(&self, version: &str, flavour: &str) -> Result<Choice, String> {
        let mut candidates = self.candidates(flavour);
        candidates.retain(|choice| is_of(&choice.release, version));
        let whole = candidates
            .iter()
            .find(|choice| self.missing(choice).is_empty());
        whole
            .cloned()
            .ok_or_else(|| self.why_none(version, flavour, candidates.first()))
    }

    /// Releases of this flavour that are whole, the newest of each series, the newest first.
    pub fn whole(&self, flavour: &str) -> Vec<String> {
        let mut seen = std::collections::HashSet::new();
        let candidates = self.candidates(flavour).into_iter();
        let mut whole = candidates.filter(|choice| self.missing(choice).is_empty());
        let newest = whole
            .by_ref()
            .filter(|choice| seen.insert(choice.series.clone()));
        newest.map(|choice| choice.release).collect()
    }

    /// All of this flavour, the newest first.
    fn candidates(&self, flavour: &str) -> Vec<Choice> {
        let suffix = format!("-{flavour}");
        let mut found = Vec::new();
        for (name, versions) in &self.versions {
            let Some(release) = name.strip_prefix("linux-image-") else {
                continue;
            };
            let series = series(release);
            if release.ends_with(&suffix) {
                found.extend(versions.iter().map(|version| Choice {
                    release: release.to_owned(),
                    version: version.clone(),
                    series: series.clone(),
                }));
            }
        }
        found.sort_by_key(|choice| std::cmp::Reverse(numbers(&choice.release)));
        found
    }

    fn missing(&self, choice: &Choice) -> Vec<String> {
        let absent = |package: &String| {
            let (name, version) = package.split_once('=').unwrap_or((package, ""));
            !self.has(name, version)
        };
        choice.packages().into_iter().filter(absent).collect()
    }

    fn why_none(&self, version: &str, flavour: &str, newest: Option<&Choice>) -> String {
        let Some(newest) = newest else {
            let hint = if version.contains('.') {
                ""
            } else {
                ": it has moved on; set another `major` in images/tree.toml"
            };
            return format!("the Debian archive has no Linux {version} of flavour {flavour}{hint}");
        };
        let missing = self.missing(newest).join(", ");
        format!(
            "no Linux {version} kernel is whole in the Debian archive: for the newest, {}, there is no {missing}; try again in a few hours, or name another mirror in GLOBALFIFO_MIRROR",
            newest.release
        )
    }
}

/// "7.3.4+deb13-cloud-amd64" → "7.3".
fn series(release: &str) -> String {
    let mut parts = release.split(['.', '+', '-']);
    let (major, minor) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    format!("{major}.{minor}")
}

/// Whether a release's version begins with the numbers of this one: "7.1.13+deb13-cloud-amd64" is of 7.1, and 7.12.1 is not.
pub fn is_of(release: &str, version: &str) -> bool {
    release
        .strip_prefix(version)
        .is_some_and(|rest| rest.starts_with(['.', '+', '-']))
}

/// The numbers in a release, for comparing.
fn numbers(release: &str) -> Vec<u64> {
    release
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(packages: &[(&str, &str)]) -> Index {
        let text: String = packages
            .iter()
            .map(|(name, version)| format!("Package: {name}\nVersion: {version}\n\n"))
            .collect();
        Index::parse(&text)
    }

    fn kernel(release: &str, version: &str) -> Vec<(String, String)> {
        [
            "linux-image",
            "linux-binary",
            "linux-modules",
            "linux-headers",
        ]
        .iter()
        .map(|kind| (format!("{kind}-{release}"), version.to_owned()))
        .collect()
    }

    fn with(kernels: &[(String, String)], sources: &[(&str, &str)]) -> Index {
        let mut all: Vec<(&str, &str)> = kernels
            .iter()
            .map(|(name, version)| (name.as_str(), version.as_str()))
            .collect();
        all.extend(sources);
        index(&all)
    }

    #[test]
    fn the_newest_kernel_with_its_source_is_chosen_by_number_not_by_spelling() {
        let mut kernels = kernel("7.3.9+deb13-cloud-amd64", "7.3.9-1");
        kernels.extend(kernel("7.3.12+deb13-cloud-amd64", "7.3.12-1"));
        let index = with(
            &kernels,
            &[
                ("linux-source-7.3", "7.3.12-1"),
                ("linux-source-7.3", "7.3.9-1"),
            ],
        );
        let choice = index.choose("7", "cloud-amd64").unwrap();
        assert_eq!(choice.release, "7.3.12+deb13-cloud-amd64");
        assert!(
            choice
                .packages()
                .contains(&"linux-source-7.3=7.3.12-1".to_owned())
        );
    }

    #[test]
    fn a_kernel_whose_source_is_of_another_version_is_passed_over() {
        let mut kernels = kernel("7.3.4+deb13-cloud-amd64", "7.3.4-1");
        kernels.extend(kernel("7.2.12+deb13-cloud-amd64", "7.2.12-1"));
        let index = with(
            &kernels,
            &[
                ("linux-source-7.3", "7.3.5-1"),
                ("linux-source-7.2", "7.2.12-1"),
            ],
        );
        assert_eq!(index.choose("7", "cloud-amd64").unwrap().series, "7.2");
    }

    #[test]
    fn when_none_fits_the_message_says_what_is_missing() {
        let index = with(&kernel("7.3.4+deb13-cloud-amd64", "7.3.4-1"), &[]);
        let message = index.choose("7", "cloud-amd64").unwrap_err();
        assert!(message.contains("linux-source-7.3=7.3.4-1"), "{message}");
        assert!(
            index
                .choose("8", "cloud-amd64")
                .unwrap_err()
                .contains("no Linux 8")
        );
    }

    #[test]
    fn a_series_is_chosen_by_its_numbers_and_whole_ones_are_listed() {
        let mut kernels = kernel("7.3.4+deb13-cloud-amd64", "7.3.4-1");
        kernels.extend(kernel("7.2.9+deb13-cloud-amd64", "7.2.9-1"));
        kernels.extend(kernel("7.2.12+deb13-cloud-amd64", "7.2.12-1"));
        kernels.extend(kernel("7.1.13+deb13-cloud-amd64", "7.1.13-1"));
        let sources = [
            ("linux-source-7.3", "7.3.4-1"),
            ("linux-source-7.2", "7.2.12-1"),
        ];
        let index = with(&kernels, &sources);
        let release = |version| index.choose(version, "cloud-amd64").map(|one| one.release);
        assert_eq!(release("7.2").as_deref(), Ok("7.2.12+deb13-cloud-amd64"));
        assert!(release("7.2.9").unwrap_err().contains("linux-source-7.2"));
        assert!(release("7.1").unwrap_err().contains("linux-source-7.1"));
        assert!(
            release("7.1.1")
                .unwrap_err()
                .contains("has no Linux 7.1.1 ")
        );
        assert_eq!(
            index.whole("cloud-amd64"),
            ["7.3.4+deb13-cloud-amd64", "7.2.12+deb13-cloud-amd64"]
        );
    }

    #[test]
    fn other_flavours_and_majors_do_not_count() {
        let index = with(
            &kernel("7.3.4+deb13-amd64", "7.3.4-1"),
            &[("linux-source-7.3", "7.3.4-1")],
        );
        assert!(index.choose("7", "cloud-amd64").is_err());
    }
}
