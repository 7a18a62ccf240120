// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Values of options, read and checked before anything is set up. Each error names its option and is a mistake of the user's.
//!
//! This file must not know which command an option belongs to.

use std::collections::HashSet;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Result;
use fifo_spec::Kind;
use fifo_spec::MAX_FIFOS;
use fifo_spec::PartialSpec;
use fifo_spec::fault::FaultError;
use fifo_spec::fault::FaultSpec;

use crate::exit::usage;
use crate::vm::config::Share;
use crate::vm::config::share_name;
use crate::vm::qemu::APPEND_MAX;

/// Bytes of a Unix socket's path (unix(7)), without the 0 behind it.
const SOCKET_PATH_MAX: usize = 107;
/// Longest name of a shared folder, as of any file.
const NAME_MAX: usize = 255;

/// `--fifo`s: as the daemon will read them, with paths that begin where the user is.
pub fn fifos(specs: &[String]) -> Result<Vec<String>> {
    if specs.len() > usize::from(MAX_FIFOS) {
        return Err(usage(format!(
            "--fifo is given {} times: a device has at most {MAX_FIFOS} FIFOs",
            specs.len()
        )));
    }
    specs.iter().map(|spec| fifo(spec)).collect()
}

fn fifo(spec: &str) -> Result<String> {
    let parsed: PartialSpec = spec
        .parse()
        .map_err(|err| usage(format!("--fifo {spec}: {err}")))?;
    if *parsed.kind() == Kind::Stdio {
        return Err(usage(format!(
            "--fifo {spec}: the device has no terminal here, and its standard output is the lab's; use pty or unix=PATH"
        )));
    }
    let folder = std::env::current_dir()
        .map_err(|err| usage(format!("--fifo {spec}: there is no current folder: {err}")))?;
    let resolved = parsed.resolved(&folder);
    if let Kind::Unix { path, .. } = resolved.kind()
        && path.as_os_str().len() > SOCKET_PATH_MAX
    {
        return Err(usage(format!(
            "--fifo {spec}: the socket's path {} has {} bytes, and at most {SOCKET_PATH_MAX} fit: use a shorter one",
            path.display(),
            path.as_os_str().len()
        )));
    }
    Ok(resolved.to_string())
}

/// Whether `--fifo none` asks for a machine without the device; then it is the only one.
pub fn no_device(specs: &[String]) -> Result<bool> {
    let none = specs.iter().any(|spec| spec == "none");
    if none && specs.len() > 1 {
        return Err(usage(
            "--fifo none: there is no device then, leave the other --fifo out",
        ));
    }
    Ok(none)
}

/// `--driver-arg NAME=VALUE`s: words of the kernel's command line, so without spaces.
pub fn driver_args(texts: &[String]) -> Result<Vec<String>> {
    for text in texts {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let is_value = |c: char| c.is_ascii_graphic() && !"\"'\\`$*?[".contains(c);
        let good = text.split_once('=').is_some_and(|(name, value)| {
            !name.is_empty() && name.chars().all(is_name) && value.chars().all(is_value)
        });
        if !good {
            return Err(usage(format!(
                "--driver-arg {text}: write NAME=VALUE, without spaces, quotation marks and wildcards"
            )));
        }
    }
    append(texts)
}

/// `--fault`s: read as the daemon will read them, for that many FIFOs.
pub fn faults(specs: &[String], fifos: usize) -> Result<Vec<String>> {
    for text in specs {
        let refused = |why: String| usage(format!("--fault {text}: {why}"));
        let spec: FaultSpec = text
            .parse()
            .map_err(|err: FaultError| refused(err.to_string()))?;
        if let Some(fifo) = spec.fifo.filter(|fifo| usize::from(*fifo) >= fifos.max(1)) {
            return Err(refused(format!("there is no FIFO {fifo}")));
        }
    }
    Ok(specs.to_vec())
}

/// `--capacity`, by the daemon's own rules.
pub fn capacity(text: &str) -> Result<String, String> {
    match fifo_spec::parse_capacity(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(err) => Err(err.to_string()),
    }
}

/// `--share [NAME=]DIR[:ro]`s.
pub fn shares(texts: &[impl AsRef<Path>]) -> Result<Vec<Share>> {
    let shares: Vec<Share> = texts
        .iter()
        .map(|text| share(text.as_ref()))
        .collect::<Result<_>>()?;
    let mut names = HashSet::new();
    match shares.iter().find(|share| !names.insert(&share.name)) {
        None => Ok(shares),
        Some(share) => Err(usage(format!(
            "two shared folders are called {}: the guest can show only one at {}; write NAME=DIR to call one otherwise",
            share.name,
            share.path()
        ))),
    }
}

/// A folder whose own name has `=` or ends in `:ro` is taken as it is written, if it is there.
fn share(text: &Path) -> Result<Share> {
    let text = text
        .to_str()
        .ok_or_else(|| usage(format!("--share {}: the name is not UTF-8", text.display())))?;
    let (rest, read_only) = match text.strip_suffix(":ro") {
        Some(rest) if !Path::new(text).is_dir() => (rest, true),
        _ => (text, false),
    };
    let (name, dir) = match rest.split_once('=') {
        Some((name, dir)) if !Path::new(rest).is_dir() => (Some(name), dir),
        _ => (None, rest),
    };
    let absolute = Path::new(dir)
        .canonicalize()
        .map_err(|err| usage(format!("--share {dir}: {err}; name an existing folder")))?;
    if !absolute.is_dir() {
        return Err(usage(format!("--share {dir}: not a folder")));
    }
    let name = match name {
        None => share_name(&absolute),
        Some(name) if is_plain(name) => name.to_owned(),
        Some(name) => {
            return Err(usage(format!(
                "--share {text}: '{name}' cannot be the name of a folder below /mnt"
            )));
        }
    };
    Ok(Share {
        name,
        dir: absolute,
        read_only,
    })
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_MAX && !name.contains('/') && name != "." && name != ".."
}

/// `--env NAME[=VALUE]`: without a value, the variable's value here.
pub fn env(text: &str) -> Result<(String, String)> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, None),
    };
    if name.is_empty() || text.contains('\0') {
        return Err(usage(format!("--env {text}: write NAME or NAME=VALUE")));
    }
    let value = match value {
        Some(value) => value,
        None => std::env::var(name).map_err(|err| {
            usage(format!(
                "--env {name}: {err} here; give it one with --env {name}=VALUE"
            ))
        })?,
    };
    Ok((name.to_owned(), value))
}

/// `--append`: words for the kernel, which end where those of its first process begin.
pub fn append(words: &[String]) -> Result<Vec<String>> {
    for word in words {
        if word.split_whitespace().any(|word| word == "--") {
            return Err(usage(format!(
                "--append {word}: what follows -- would be the first process's, which is the lab's own"
            )));
        }
        if word.contains(['\n', '\0']) {
            return Err(usage(format!("--append {word:?}: one line only")));
        }
    }
    let bytes: usize = words.iter().map(|word| word.len() + 1).sum();
    if bytes > APPEND_MAX {
        return Err(usage(format!(
            "--append: {bytes} bytes, and there is room for {APPEND_MAX}"
        )));
    }
    Ok(words.to_vec())
}

/// `--console FILE`: a place where it cannot be is known before set-up. Nothing is made yet.
pub fn console(path: &Path) -> Result<PathBuf> {
    let refused = |why: String| usage(format!("--console {}: {why}", path.display()));
    if path.metadata().is_ok_and(|meta| !meta.is_file()) {
        return Err(refused(
            "not a file; -v shows the console on standard error".to_owned(),
        ));
    }
    let folder = match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => return Err(refused("not a file".to_owned())),
    };
    let folder = folder
        .canonicalize()
        .map_err(|err| refused(format!("its folder: {err}")))?;
    let file = folder.join(path.file_name().unwrap_or_default());
    let writable = if file.exists() { &file } else { &folder };
    rustix::fs::access(writable, rustix::fs::Access::WRITE_OK)
        .map_err(|err| refused(err.to_string()))?;
    Ok(file)
}

/// A usage error unless the folder is there in which `option` has a file written.
pub fn has_folder(option: &str, path: &Path) -> Result<()> {
    let folder = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    match folder {
        Some(dir) if !dir.is_dir() => Err(usage(format!(
            "{option} {}: there is no such folder",
            path.display()
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error<T: std::fmt::Debug>(result: Result<T>) -> String {
        let err = result.unwrap_err();
        let (status, message) = crate::exit::of(&err);
        assert_eq!(status, crate::exit::USAGE, "{message}");
        message
    }

    #[test]
    fn a_shared_folder_may_be_read_only_renamed_or_both_and_must_exist() {
        let dir = tempfile::tempdir().unwrap();
        let odd = dir.path().join("a=b:ro");
        std::fs::create_dir(&odd).unwrap();
        let path = dir.path().display();
        let name = dir.path().file_name().unwrap().to_str().unwrap();
        for (text, expected, read_only) in [
            (format!("{path}"), name, false),
            (format!("{path}:ro"), name, true),
            (format!("data={path}"), "data", false),
            (format!("data={path}:ro"), "data", true),
            (odd.display().to_string(), "a=b:ro", false),
        ] {
            let found = share(Path::new(&text)).unwrap();
            assert_eq!(
                (found.name.as_str(), found.read_only),
                (expected, read_only)
            );
            assert_eq!(found.path(), format!("/mnt/{expected}"));
        }
        for bad in ["..=", "a/b=", "=", ".="] {
            error(share(Path::new(&format!("{bad}{path}"))));
        }
        assert!(error(share(Path::new("/no/such/folder"))).contains("existing"));
        let twice = [format!("x={path}"), "x=/".to_owned()];
        assert!(error(shares(&twice)).contains("called x"));
    }

    #[test]
    fn paths_in_a_fifo_begin_where_the_user_is() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(
            fifo("unix=data.sock,capacity=1K").unwrap(),
            format!("unix={}/data.sock,capacity=1024", here.display())
        );
        assert_eq!(fifo("pty,link=/tmp/tty").unwrap(), "pty,link=/tmp/tty");
        assert!(
            error(fifo("unix=a,conect")).contains("--fifo unix=a,conect: unknown option 'conect'")
        );
    }

    #[test]
    fn a_socket_whose_path_does_not_fit_is_refused() {
        let path = |length: usize| format!("/{}", "x".repeat(length - 1));
        fifo(&format!("unix={}", path(SOCKET_PATH_MAX))).unwrap();
        let err = error(fifo(&format!("unix={}", path(SOCKET_PATH_MAX + 1))));
        assert!(err.contains("at most 107 fit"), "{err}");
    }

    #[test]
    fn a_device_has_no_more_than_31_fifos() {
        let specs = |count| vec!["loopback".to_owned(); count];
        assert_eq!(fifos(&specs(31)).unwrap().len(), 31);
        assert!(error(fifos(&specs(32))).contains("at most 31"));
    }

    #[test]
    fn a_fault_is_what_the_daemon_takes_for_these_fifos() {
        let one = |spec: &str| faults(&[spec.to_owned()], 0);
        assert_eq!(
            one("stall,fifo=0,after=1s").unwrap(),
            ["stall,fifo=0,after=1s"]
        );
        for bad in ["stal", "stall,fifo=x", "stall,fifo=1", ""] {
            assert!(error(one(bad)).contains("--fault"), "{bad}");
        }
        faults(&["stall,fifo=1".to_owned()], 2).unwrap();
    }

    #[test]
    fn no_device_is_asked_for_alone_and_a_drivers_parameter_is_one_word() {
        let specs = |texts: &[&str]| {
            texts
                .iter()
                .map(|text| (*text).to_owned())
                .collect::<Vec<_>>()
        };
        assert!(no_device(&specs(&["none"])).unwrap());
        assert!(!no_device(&specs(&["loopback"])).unwrap());
        error(no_device(&specs(&["none", "loopback"])));
        driver_args(&specs(&["size=8192", "name=a,b", "x="])).unwrap();
        for bad in ["size", "=1", "size=a b", "a b=1", "size=\"1\"", "s=*"] {
            error(driver_args(&specs(&[bad])));
        }
    }

    #[test]
    fn a_capacity_is_what_the_daemon_takes() {
        for good in ["1", "64K", "16M"] {
            assert_eq!(capacity(good).unwrap(), good);
        }
        for bad in ["", "0", "17M", "K", "-1", "1KK", "4294967297"] {
            assert!(capacity(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_variable_has_a_value_of_its_own_or_the_one_it_has_here() {
        assert_eq!(env("A=b=c").unwrap(), ("A".to_owned(), "b=c".to_owned()));
        let path = std::env::var("PATH").unwrap();
        assert_eq!(env("PATH").unwrap(), ("PATH".to_owned(), path));
        for bad in ["", "=x", "NO_SUCH_VARIABLE_HERE"] {
            error(env(bad));
        }
    }

    #[test]
    fn words_for_the_kernel_are_a_line_that_fits() {
        let words = |text: &str| append(&[text.to_owned()]);
        assert_eq!(words("quiet loglevel=3").unwrap(), ["quiet loglevel=3"]);
        for bad in ["a -- b", "a\nb", &"x".repeat(3000)] {
            error(words(bad));
        }
    }

    #[test]
    fn the_consoles_file_is_not_made_before_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("console");
        assert_eq!(
            console(&file).unwrap(),
            file.canonicalize().unwrap_or(file.clone())
        );
        assert!(!file.exists());
        for bad in [dir.path(), Path::new("/dev/null"), Path::new("/no/such/x")] {
            error(console(bad));
        }
    }
}
