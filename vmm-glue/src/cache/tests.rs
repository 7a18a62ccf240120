// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Two labs and one entry. Locks belong to open files, so two caches in one process are as good as two processes.

use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::key::KeyBuilder;

/// Nothing here takes as long.
const LIMIT: Duration = Duration::from_secs(60);

fn cache(root: &Path) -> Cache {
    make_parts(root).unwrap();
    let in_use = open_lock(&root.join("locks").join(IN_USE)).unwrap();
    Cache {
        root: root.to_owned(),
        in_use,
    }
}

/// How often this process has the lock of the only entry open.
fn openers(root: &Path) -> usize {
    let locks = root.join("locks");
    let is_one = |fd: &PathBuf| {
        fs::read_link(fd).is_ok_and(|target| {
            target.starts_with(&locks) && target.file_name().is_some_and(|name| name != IN_USE)
        })
    };
    entries(Path::new("/proc/self/fd"))
        .iter()
        .filter(|fd| is_one(fd))
        .count()
}

#[test]
fn who_waits_for_an_entry_has_it_when_it_is_complete_and_not_when_its_maker_ends() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_owned();
    let key = KeyBuilder::new("x").field("a", "b").finish();
    let (begun, has_begun) = mpsc::channel();
    let (finish, may_finish) = mpsc::channel::<()>();
    let (got, has_got) = mpsc::channel();
    std::thread::scope(|scope| {
        let (root, key) = (&root, &key);
        let maker = scope.spawn(move || {
            cache(root).obtain("x", key, |dir| {
                begun.send(()).unwrap();
                may_finish.recv()?;
                Ok(fs::write(dir.join("made"), "by the maker")?)
            })
        });
        has_begun.recv_timeout(LIMIT).unwrap();
        scope.spawn(move || {
            let entry = cache(root).obtain("x", key, |_| anyhow::bail!("made twice"));
            got.send(entry.and_then(|entry| Ok(fs::read_to_string(entry.join("made"))?)))
        });
        while openers(root) < 2 {
            std::thread::yield_now();
        }
        finish.send(()).unwrap();
        let made = maker.join().unwrap().unwrap();
        // The maker goes on and uses it.
        let text = has_got.recv_timeout(LIMIT).unwrap().unwrap();
        assert_eq!(text, "by the maker");
        drop(made);
    });
}
