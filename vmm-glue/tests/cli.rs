// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The lab's command line: mistakes, and what can be said without booting anything.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

mod common;

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use common::command;
use rustix::process::Pid;
use rustix::process::Signal;

/// How a run of the lab ended.
#[derive(Debug)]
struct Outcome {
    status: i32,
    stdout: String,
    stderr: String,
    /// The directory that it had for its cache.
    cache: PathBuf,
}

/// The lab with an empty cache of its own.
fn lab(args: &[&str]) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    lab_in(dir.path(), args)
}

/// The lab with this for `$XDG_CACHE_HOME`.
fn lab_in(cache: &Path, args: &[&str]) -> Outcome {
    let mut command = command(args);
    command.env("XDG_CACHE_HOME", cache);
    let output = command.stdin(Stdio::null()).output().unwrap();
    Outcome {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        cache: cache.to_owned(),
    }
}

#[test]
fn a_new_driver_is_made_once_and_never_over_something() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("my-fifo");
    let words = ["new", path.to_str().unwrap(), "--kind", "irq"];
    let outcome = lab(&words);
    assert_eq!(outcome.status, 0, "{}", outcome.stderr);
    assert!(outcome.stdout.contains("--next"), "{}", outcome.stdout);
    assert!(path.join("my_fifo.c").is_file() && path.join("Makefile").is_file());
    let again = lab(&words);
    assert_eq!(again.status, 2, "{}", again.stderr);
    assert!(again.stderr.contains("it exists"), "{}", again.stderr);
    let bad = lab(&["new", dir.path().join("no/fifo").to_str().unwrap()]);
    assert_eq!(bad.status, 2, "{}", bad.stderr);
    let denied = lab(&["new", "/proc/my_fifo"]);
    assert_eq!(denied.status, 1, "{}", denied.stderr);
    assert!(denied.stderr.contains("cannot make"), "{}", denied.stderr);
}

#[test]
fn no_command_is_a_usage_error_that_shows_the_commands() {
    let outcome = lab(&[]);
    assert_eq!(outcome.status, 2);
    for command in ["demo", "run", "cc", "test", "doctor", "clean"] {
        assert!(outcome.stderr.contains(command), "{}", outcome.stderr);
    }
}

#[test]
fn mistakes_on_the_command_line_end_with_2_and_say_what_is_wrong() {
    let many = ["--fifo", "loopback"].repeat(32);
    let many = [&["run"], many.as_slice()].concat();
    let cases: [(&[&str], &str); 38] = [
        (&["rnu"], "rnu"),
        (&["run", "--frobnicate"], "--frobnicate"),
        (&["run", "--fifo", "lopback", "--", "true"], "lopback"),
        (&["run", "--fifo", "", "--", "true"], "--fifo"),
        (
            &["run", "--fifo", "stdio", "--", "true"],
            "no terminal here",
        ),
        (
            &["run", "--fifo", "unix", "--", "true"],
            "write 'unix=PATH'",
        ),
        (
            &["run", "--fifo", "pty,connect", "--", "true"],
            "belongs to FIFO kind 'unix'",
        ),
        (
            &["run", "--fifo", "loopback,capacity=0", "--", "true"],
            "out of range",
        ),
        (&["run", "--capacity", "0", "--", "true"], "capacity"),
        (&["run", "--capacity", "many", "--", "true"], "capacity"),
        (&["run", "--capacity", "17M", "--", "true"], "out of range"),
        (&many, "at most 31"),
        (&["run", "--fault", "stal", "--", "true"], "--fault stal"),
        (&["run", "--env", "=x", "--", "true"], "NAME=VALUE"),
        (
            &["run", "--env", "NOT_SET_HERE", "--", "true"],
            "NOT_SET_HERE",
        ),
        (&["run", "--append", "a -- b", "--", "true"], "--append"),
        (&["run", "--console", "/dev", "--", "true"], "not a file"),
        (
            &["run", "--console", "/no/such/folder/x", "--", "true"],
            "/no/such/folder/x",
        ),
        (&["run", "--share", "a/b=/tmp", "--", "true"], "a/b"),
        (&["run", "--smp", "0", "--", "true"], "smp"),
        (&["run", "--mem", "1T", "--", "true"], "mem"),
        (
            &["run", "--queue-size", "100", "--", "true"],
            "power of two",
        ),
        (&["run", "--accel", "warp", "--", "true"], "warp"),
        (&["run", "--kernel", "mine", "--", "true"], "mine"),
        (
            &["run", "--kernel", "/no/such/kernel", "--", "true"],
            "there is no such folder",
        ),
        (
            &["run", "--kernel", "/usr", "--", "true"],
            "no kernel has been built in it",
        ),
        (
            &["run", "--kernel", "7.1", "--", "true"],
            "needs Linux 7.2 or newer",
        ),
        (
            &["test", "--kernel", "debug", "host/rustfmt"],
            "only tests below guest/",
        ),
        (
            &["test", "--driver-edition", "teaching", "lab/"],
            "only tests below guest/",
        ),
        (&["run", "--root", "disk", "--", "true"], "disk"),
        (
            &["run", "--root", "ram", "--mem", "512M", "--", "true"],
            "--mem 768M",
        ),
        (&["demo", "--driver-edition", "slow"], "slow"),
        (
            &[
                "run",
                "--driver",
                "none",
                "--driver-edition",
                "teaching",
                "--",
                "true",
            ],
            "--driver-edition",
        ),
        (
            &["run", "--share", "/no/such/folder", "--", "true"],
            "/no/such/folder",
        ),
        (
            &["run", "--driver", "/etc/passwd", "--", "true"],
            "not a kernel module",
        ),
        (
            &["run", "--qemu", "/no/such/qemu", "--", "true"],
            "/no/such/qemu",
        ),
        (&["run", "--install", "-y", "--", "true"], "-y"),
        (
            &["test", "--junit", "/no/such/folder/x.xml"],
            "/no/such/folder",
        ),
    ];
    for (args, named) in cases {
        let outcome = lab(args);
        assert_eq!(outcome.status, 2, "{args:?}: {}", outcome.stderr);
        assert!(
            outcome.stderr.contains(named),
            "{args:?}: {}",
            outcome.stderr
        );
        assert!(outcome.stdout.is_empty(), "{args:?}: {}", outcome.stdout);
    }
}

#[test]
fn the_lab_s_own_mistakes_are_one_line() {
    let outcome = lab(&["run", "--share", "/no/such/folder", "--", "true"]);
    assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
}

#[test]
fn a_program_that_is_no_qemu_is_named_before_anything_is_set_up() {
    let outcome = lab(&["run", "--qemu", "/bin/true", "--", "true"]);
    assert_eq!(outcome.status, 1, "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("/bin/true does not work as QEMU"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn a_dry_run_prints_the_commands_and_makes_nothing() {
    let outcome = lab(&[
        "run",
        "--dry-run",
        "--fifo",
        "unix=data.sock",
        "--fifo",
        "loopback,capacity=1",
        "--smp",
        "2",
    ]);
    assert_eq!(outcome.status, 0, "{}", outcome.stderr);
    let qemu = outcome.stdout.lines().last().unwrap();
    for part in [
        "qemu-system-x86_64",
        "num_vqs=6",
        "virtio-id=37",
        "config_size=12",
        "share=on",
        "-smp 2",
    ] {
        assert!(qemu.contains(part), "{part}: {qemu}");
    }
    // The daemon may run anywhere.
    let here = std::env::current_dir().unwrap();
    let absolute = format!("--fifo 'unix={}/data.sock'", here.display());
    assert!(outcome.stdout.contains(&absolute), "{}", outcome.stdout);
    assert!(
        outcome.stdout.contains("not set up yet"),
        "{}",
        outcome.stdout
    );
    assert!(!outcome.cache.join("globalfifo/stages/tree").exists());
}

#[test]
fn a_dry_run_shows_where_the_control_socket_will_be() {
    for (args, path) in [
        (&["run", "--dry-run"][..], "/control.sock "),
        (&["run", "--dry-run", "--control", "c"], "--control c "),
    ] {
        let outcome = lab(args);
        let mut lines = outcome.stdout.lines();
        let daemon = lines.find(|line| line.contains("--virtio-id")).unwrap();
        assert!(
            daemon.contains("--control") && daemon.contains(path),
            "{daemon}"
        );
    }
}

#[test]
fn a_dry_run_with_the_debug_kernel_names_it_as_missing_and_boots_it() {
    let outcome = lab(&["run", "--dry-run", "--kernel", "debug"]);
    assert_eq!(outcome.status, 0, "{}", outcome.stderr);
    let qemu = outcome.stdout.lines().last().unwrap();
    for part in ["stages/boot-image/", "kasan_multi_shot"] {
        assert!(qemu.contains(part), "{part}: {qemu}");
    }
    assert!(
        outcome.stdout.contains("the debug kernel"),
        "{}",
        outcome.stdout
    );
    let stock = lab(&["run", "--dry-run"]);
    assert!(!stock.stdout.contains("debug"), "{}", stock.stdout);
}

#[test]
fn a_dry_run_with_the_rt_kernel_needs_no_stock_kernel() {
    let outcome = lab(&["run", "--dry-run", "--kernel", "rt"]);
    assert_eq!(outcome.status, 0, "{}", outcome.stderr);
    let (missing, commands) = outcome.stdout.split_once('\n').unwrap();
    assert!(missing.contains("the rt kernel"), "{missing}");
    assert!(!missing.contains("the kernel"), "{missing}");
    assert!(commands.contains("stages/boot-image/"), "{commands}");
}

#[test]
fn a_dry_run_with_a_root_in_ram_has_no_virtiofs() {
    let outcome = lab(&["run", "--dry-run", "--root", "ram"]);
    assert_eq!(outcome.status, 0, "{}", outcome.stderr);
    for absent in ["virtiofs", "vhost-user-fs"] {
        assert!(!outcome.stdout.contains(absent), "{}", outcome.stdout);
    }
    for part in ["-initrd ", "the root in RAM"] {
        assert!(outcome.stdout.contains(part), "{}", outcome.stdout);
    }
    let usual = lab(&["run", "--dry-run"]);
    assert!(usual.stdout.contains("vhost-user-fs"), "{}", usual.stdout);
}

/// The architecture that this machine has not.
const FOREIGN: &str = if cfg!(target_arch = "x86_64") {
    "arm64"
} else {
    "x86-64"
};

#[test]
fn a_dry_run_for_another_architecture_has_its_qemu_and_all_else_of_this_machine() {
    let outcome = lab(&["run", "--dry-run", "--arch", FOREIGN]);
    assert_eq!(outcome.status, 0, "{}", outcome.stderr);
    let (missing, commands) = outcome.stdout.split_once('\n').unwrap();
    for part in ["tools for the guest's architecture", "the guest's userland"] {
        assert!(missing.contains(part), "{part}: {missing}");
    }
    let (program, console) = match FOREIGN {
        "arm64" => ("qemu-system-aarch64", "console=ttyAMA0"),
        _ => ("qemu-system-x86_64", "console=ttyS0"),
    };
    let qemu = commands.lines().last().unwrap();
    for part in [program, console, "accel=tcg"] {
        assert!(qemu.contains(part), "{part}: {qemu}");
    }
    // The root that is shared is that userland, not the tree.
    let root = commands.lines().next().unwrap();
    assert!(root.contains("stages/userland/"), "{root}");
    let usual = lab(&["run", "--dry-run"]);
    assert!(!usual.stdout.contains("architecture"), "{}", usual.stdout);
    assert!(!usual.stdout.contains(program), "{}", usual.stdout);
}

#[test]
fn what_there_is_not_on_another_architecture_is_refused_before_set_up() {
    for (args, words) in [
        (&["--kernel", "debug"][..], "--kernel debug: it is built on"),
        (&["--accel", "kvm"], "use --accel tcg"),
    ] {
        let args = [&["run", "--arch", FOREIGN][..], args, &["--", "true"]].concat();
        let outcome = lab(&args);
        assert_ne!(outcome.status, 0, "{args:?}");
        assert!(
            outcome.stderr.contains(words),
            "{args:?}: {}",
            outcome.stderr
        );
        assert!(
            !outcome.cache.join("globalfifo/stages").exists(),
            "{args:?}"
        );
    }
    let outcome = lab(&["run", "--arch", "riscv64", "--", "true"]);
    assert_eq!(outcome.status, 2);
    assert!(outcome.stderr.contains("arm64"), "{}", outcome.stderr);
}

#[test]
fn a_dry_run_quotes_for_the_shell() {
    let outcome = lab(&[
        "run",
        "--dry-run",
        "--qemu-arg",
        "-name",
        "--qemu-arg",
        "it's me",
    ]);
    let words = shell_words::split(outcome.stdout.lines().last().unwrap()).unwrap();
    assert!(
        words.ends_with(&["-name".to_owned(), "it's me".to_owned()]),
        "{words:?}"
    );
}

#[test]
fn a_cache_that_cannot_be_made_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let outcome = lab_in(&file, &["run", "--", "true"]);
    assert_eq!(outcome.status, 1);
    assert!(
        outcome.stderr.contains("XDG_CACHE_HOME"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn cleaning_without_a_cache_is_no_error() {
    let outcome = lab(&["clean", "--all"]);
    assert_eq!(outcome.status, 0, "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("nothing to free"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn cleaning_says_how_much_it_freed_and_keeps_what_is_expensive() {
    let dir = tempfile::tempdir().unwrap();
    let stages = dir.path().join("globalfifo/stages");
    for (stage, entry) in [
        ("tree", "aa"),
        ("tree", "bb.partial"),
        ("debug-kernel", "dd"),
        ("module", "cc"),
    ] {
        let entry = stages.join(stage).join(entry);
        fs::create_dir_all(&entry).unwrap();
        fs::write(entry.join("file"), vec![1; 100_000]).unwrap();
    }
    fs::create_dir_all(dir.path().join("globalfifo/locks")).unwrap();
    for lock in ["in-use", "module-cc"] {
        fs::write(dir.path().join("globalfifo/locks").join(lock), "").unwrap();
    }
    let outcome = lab_in(dir.path(), &["clean"]);
    assert!(outcome.stdout.starts_with("freed "), "{}", outcome.stdout);
    assert!(stages.join("tree/aa").exists());
    assert!(stages.join("debug-kernel/dd").exists());
    assert!(!stages.join("tree/bb.partial").exists());
    assert!(!stages.join("module").exists());
    assert!(!dir.path().join("globalfifo/locks/module-cc").exists());
    assert_eq!(lab_in(dir.path(), &["clean", "--all"]).status, 0);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// What a killed lab left half made goes with the next lab, whatever that is about; what another lab is making stays.
#[test]
fn half_made_entries_are_removed_unless_somebody_is_making_them() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("globalfifo");
    for entry in ["tree/left", "tree/making"] {
        fs::create_dir_all(cache.join("stages").join(format!("{entry}.partial"))).unwrap();
    }
    fs::create_dir_all(cache.join("locks")).unwrap();
    let lock = fs::File::create(cache.join("locks/tree-making")).unwrap();
    lock.lock().unwrap();
    let outcome = lab_in(dir.path(), &["run", "--dry-run"]);
    assert_eq!(outcome.status, 0, "{}", outcome.stderr);
    assert!(!cache.join("stages/tree/left.partial").exists());
    assert!(cache.join("stages/tree/making.partial").exists());
}

#[test]
fn a_cache_from_which_nothing_can_be_loaded_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let outcome = lab_in(&dir.path().join("a:b"), &["run", "--", "true"]);
    assert_eq!(outcome.status, 2, "{}", outcome.stderr);
    assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("XDG_CACHE_HOME"),
        "{}",
        outcome.stderr
    );
    let commas = lab_in(&dir.path().join("a,b c"), &["run", "--dry-run"]);
    assert_eq!(commas.status, 0, "{}", commas.stderr);
}

/// In a mount namespace of its own.
#[test]
fn a_cache_that_is_mounted_noexec_is_named_by_the_doctor_and_by_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let script =
        r#"mount -t tmpfs -o noexec lab "$XDG_CACHE_HOME" && "$1" doctor; "$1" run -- true"#;
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", script, "sh"])
        .arg(env!("CARGO_BIN_EXE_fifo-lab"))
        .env("XDG_CACHE_HOME", dir.path())
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stdout.contains("missing  programs in the cache"),
        "{stdout}{stderr}"
    );
    assert!(stderr.contains("mounted noexec"), "{stderr}");
    assert_eq!(output.status.code(), Some(1));
}

/// What was mounted, written or locked there can be removed at once. As the lab starts its helpers.
#[test]
fn nothing_of_a_namespace_is_left_when_its_keeper_has_ended() {
    let script = "for i in $(seq 200); do sleep 1000 & done; echo up; wait";
    let word = |word: &str| format!(r#"{{"Unix":{:?}}}"#, word.as_bytes());
    let spec = format!(
        r#"{{"argv":[{},{},{}],"cwd":null,"env":[],"environment":"Whole","umask":null,"place":"Isolated","parent":{}}}"#,
        word("sh"),
        word("-c"),
        word(script),
        std::process::id()
    );
    let (reader, writer) = std::io::pipe().unwrap();
    let mut helper = command(&["@child", "outer", &spec])
        .stdout(writer)
        .spawn()
        .unwrap();
    let mut said = BufReader::new(reader);
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    rustix::process::kill_process(Pid::from_child(&helper), Signal::TERM).unwrap();
    helper.wait().unwrap();
    // A process that is left holds the pipe open, and a read of it would wait.
    rustix::io::ioctl_fionbio(said.get_ref(), true).unwrap();
    assert_eq!(said.read_line(&mut line).unwrap(), 0);
}

/// The alias of .cargo/config.toml names a package, which each workspace has to have: it is asked for in the one of the folder where the user is.
#[test]
fn every_workspace_of_the_repository_has_the_lab() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for folder in ["", "vmm-glue/src/vm", "docs", "fuzz", "fuzz/targets"] {
        let output = Command::new("cargo")
            .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
            .current_dir(repository.join(folder))
            .output()
            .unwrap();
        let packages = String::from_utf8_lossy(&output.stdout);
        assert!(
            packages.contains(r#""name":"fifo-lab""#) && packages.contains(r#""kind":["bin"]"#),
            "{folder}: {packages}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn qemu_is_sandboxed_and_a_comma_in_a_path_is_doubled_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let (temporary, console) = (dir.path().join("a,b"), dir.path().join("console"));
    fs::create_dir(&temporary).unwrap();
    let output = command(&["run", "--dry-run", "--console", console.to_str().unwrap()])
        .env("XDG_CACHE_HOME", dir.path())
        .env("TMPDIR", &temporary)
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let qemu = stdout.lines().last().unwrap();
    assert!(
        qemu.contains("/a,,b/globalfifo-run-XXXXXX/console.pipe"),
        "{qemu}"
    );
    assert!(qemu.contains("-sandbox 'on,"), "{qemu}");
    // QEMU writes it through a pipe.
    let copy = format!(
        "/a,b/globalfifo-run-XXXXXX/console.pipe >{} &",
        console.display()
    );
    assert!(stdout.contains(&copy), "{stdout}");
    assert!(!console.exists());
}

#[test]
fn cleaning_refuses_while_a_lab_uses_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    let locks = dir.path().join("globalfifo/locks");
    fs::create_dir_all(&locks).unwrap();
    let file = fs::File::create(locks.join("in-use")).unwrap();
    file.lock_shared().unwrap();
    let outcome = lab_in(dir.path(), &["clean"]);
    assert_eq!(outcome.status, 1);
    assert!(
        outcome.stderr.contains("a lab is running"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn the_doctor_lists_what_is_needed() {
    let outcome = lab(&["doctor"]);
    for what in [
        "C compiler",
        "static C library",
        "open files",
        "mmdebstrap",
        "namespaces",
        "room for the cache",
        "KVM",
    ] {
        assert!(outcome.stdout.contains(what), "{}", outcome.stdout);
    }
}

/// Some distributions keep the static half of the C library apart: their compiler does not find it, and gives the name back.
#[test]
fn a_missing_static_c_library_is_named_by_the_doctor() {
    use std::os::unix::fs::PermissionsExt;

    let dir = tempfile::tempdir().unwrap();
    let cc = dir.path().join("cc");
    fs::write(&cc, "#!/bin/sh\necho libc.a\n").unwrap();
    fs::set_permissions(&cc, fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_fifo-lab"))
        .arg("doctor")
        .env("PATH", format!("{}:{path}", dir.path().display()))
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let mut lines = stdout.lines();
    let line = lines
        .find(|line| line.contains("static C library"))
        .unwrap();
    assert!(line.starts_with("missing"), "{stdout}");
    assert!(stdout.contains("cc finds no libc.a"), "{stdout}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_baseline_that_is_none_is_one_line_before_anything_is_set_up() {
    let dir = tempfile::tempdir().unwrap();
    let foreign = dir.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("bench.json"), "{\"results\": []}").unwrap();
    let cases = [
        (dir.path().join("none"), "cannot read bench.json"),
        (dir.path().to_owned(), "cannot read bench.json"),
        (foreign, "no report of `cargo lab bench`"),
    ];
    for (baseline, what) in cases {
        let name = baseline.display().to_string();
        let cache = tempfile::tempdir().unwrap();
        let outcome = lab_in(cache.path(), &["bench", "--baseline", &name]);
        assert_eq!(outcome.status, 2, "{name}: {}", outcome.stderr);
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
        for part in ["--baseline", &name, what] {
            assert!(outcome.stderr.contains(part), "{part}: {}", outcome.stderr);
        }
        assert!(outcome.stdout.is_empty(), "{}", outcome.stdout);
        assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 0);
    }
}
