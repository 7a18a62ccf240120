// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The lab with real machines. Ignored by plain `cargo test`, which must not need minutes of set-up; `cargo lab test` runs them, one by one.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

mod common;
#[path = "common/daemon.rs"]
mod daemon;

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use common::command;

/// The lab with the user's cache, and this on its standard input.
fn lab_with_input(input: &[u8], args: &[&str]) -> (i32, Vec<u8>, String) {
    let mut child = command(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    (
        output.status.code().unwrap_or(-1),
        output.stdout,
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

fn run(args: &[&str]) -> (i32, String, String) {
    let all: Vec<&str> = ["-q", "run"].iter().chain(args).copied().collect();
    let (status, stdout, stderr) = lab_with_input(b"", &all);
    (
        status,
        String::from_utf8_lossy(&stdout).into_owned(),
        stderr,
    )
}

#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn streams_stay_apart_and_the_status_is_the_commands() {
    let (status, stdout, stderr) = run(&["--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!(
        (status, stdout.as_str(), stderr.as_str()),
        (7, "out\n", "err\n")
    );
}

#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn statuses_are_those_of_a_shell() {
    assert_eq!(run(&["--", "no-such-program"]).0, 127);
    assert_eq!(run(&["--", "/etc/passwd"]).0, 126);
    assert_eq!(run(&["--", "sh", "-c", "kill -TERM $$"]).0, 128 + 15);
}

#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn megabytes_of_any_bytes_go_in_and_come_out_whole() {
    let input: Vec<u8> = (0..5_000_000_u32)
        .map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3])
        .collect();
    let (status, stdout, stderr) = lab_with_input(&input, &["-q", "run", "--", "cat"]);
    assert_eq!((status, stderr.as_str()), (0, ""));
    assert!(
        stdout == input,
        "{} bytes came back of {}",
        stdout.len(),
        input.len()
    );
}

#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn a_daemon_left_behind_does_not_hold_the_lab_up() {
    let started = Instant::now();
    let (status, stdout, _) = run(&["--", "sh", "-c", "sleep 600 & echo done"]);
    assert_eq!((status, stdout.as_str()), (0, "done\n"));
    assert!(started.elapsed() < Duration::from_secs(120));
}

#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn a_shared_folder_is_where_the_command_starts_and_writes_reach_it() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("in"), "from the host").unwrap();
    let share = dir.path().to_str().unwrap();
    let (status, stdout, stderr) = run(&[
        "--share",
        share,
        "--",
        "sh",
        "-c",
        "cat in; echo from the guest >out",
    ]);
    assert_eq!((status, stdout.as_str()), (0, "from the host"), "{stderr}");
    assert_eq!(
        fs::read_to_string(dir.path().join("out")).unwrap(),
        "from the guest\n"
    );
    let read_only = format!("{share}:ro");
    let (status, _, _) = run(&["--share", &read_only, "--", "sh", "-c", "echo x >out2"]);
    assert_ne!(status, 0);
    assert!(!dir.path().join("out2").exists());
}

#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn compiled_c_runs_in_the_guest() {
    let dir = tempfile::tempdir().unwrap();
    let source = "#include <libaio.h>\n#include <stdio.h>\nint main(void){io_context_t c=0;printf(\"%d\\n\",io_setup(1,&c));return 3;}\n";
    fs::write(dir.path().join("a.c"), source).unwrap();
    fs::write(
        dir.path().join("bad.c"),
        "int main(void){return nothing;}\n",
    )
    .unwrap();
    let cc = |args: &[&str]| {
        command(&[&["cc"], args].concat())
            .current_dir(dir.path())
            .output()
            .unwrap()
    };
    let good = cc(&["a.c", "-o", "a", "-laio", "-lrt", "-pthread"]);
    assert!(
        good.status.success(),
        "{}",
        String::from_utf8_lossy(&good.stderr)
    );
    let absolute = dir.path().join("bad.c");
    let bad = cc(&[absolute.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&bad.stderr).into_owned();
    assert!(
        said.contains(&format!("{}:1", absolute.display())),
        "{said}"
    );
    let (status, stdout, stderr) = run(&["--share", dir.path().to_str().unwrap(), "--", "./a"]);
    assert_eq!((status, stdout.as_str()), (3, "0\n"), "{stderr}");
}

#[test]
#[ignore = "compiles in the guest's tree: run by `cargo lab test`"]
fn each_rule_that_is_shown_is_a_program_without_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let grade = |args: &[&str]| {
        let shown = command(&[&["grade"], args].concat()).output().unwrap();
        assert!(shown.status.success(), "{shown:?}");
        String::from_utf8(shown.stdout).unwrap()
    };
    let mut programs = Vec::new();
    for line in grade(&["--list"]).lines() {
        let rule = line.split_whitespace().nth(1).unwrap();
        let text = grade(&["--show", rule]);
        if text.contains("int main(") {
            let name = format!("{rule}.c");
            fs::write(dir.path().join(&name), text).unwrap();
            programs.push(name);
        }
    }
    assert!(programs.len() > 60, "{}", programs.len());
    let compiled = command(&["cc", "-fsyntax-only", "-O1", "-Wall", "-Wextra", "-Werror"])
        .arg("-Wno-unused-result")
        .args(&programs)
        .current_dir(dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&compiled.stderr);
    assert!(compiled.status.success(), "{said}");
}

/// A folder as a user has it who has built a kernel: the stock kernel's prepared build, its image, and the one module that a guest needs.
fn built_kernel() -> tempfile::TempDir {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"));
    let stages = cache.join("globalfifo/stages");
    // A cache may have kernels for other architectures, too.
    let is_for_x86 = |entry: &Path| {
        fs::read_to_string(entry.join("config"))
            .map_or(true, |config| config.contains("CONFIG_X86_64=y"))
    };
    let newest = |stage: &str| {
        let entries = fs::read_dir(stages.join(stage)).unwrap();
        let complete = entries
            .map(|entry| entry.unwrap().path())
            .filter(|entry| entry.join(".complete").exists() && is_for_x86(entry));
        complete
            .max_by_key(|entry| fs::metadata(entry).unwrap().modified().unwrap())
            .unwrap()
    };
    let (kernel, tree) = (newest("kernel"), newest("tree"));
    let dir = tempfile::tempdir().unwrap();
    let copy = |from: PathBuf, to: &str| {
        let to = dir.path().join(to);
        let status = Command::new("cp").arg("-a").args([from, to]).status();
        assert!(status.unwrap().success());
    };
    copy(kernel.join("build/."), "");
    fs::remove_file(dir.path().join("source")).unwrap();
    std::os::unix::fs::symlink(kernel.join("source"), dir.path().join("source")).unwrap();
    fs::create_dir_all(dir.path().join("arch/x86/boot")).unwrap();
    copy(kernel.join("vmlinuz"), "arch/x86/boot/bzImage");
    fs::write(dir.path().join("modules.order"), "fs/overlayfs/overlay.o\n").unwrap();
    fs::create_dir_all(dir.path().join("fs/overlayfs")).unwrap();
    let release = fs::read_to_string(kernel.join("release")).unwrap();
    let module = format!(
        "modules/{}/kernel/fs/overlayfs/overlay.ko.xz",
        release.trim()
    );
    let unpacked = Command::new(tree.join("usr/lib64/ld-linux-x86-64.so.2"))
        .arg("--library-path")
        .arg(tree.join("usr/lib/x86_64-linux-gnu"))
        .arg(tree.join("usr/bin/xz"))
        .arg("-dc")
        .arg(kernel.join(module))
        .output()
        .unwrap();
    assert!(unpacked.status.success());
    fs::write(dir.path().join("fs/overlayfs/overlay.ko"), unpacked.stdout).unwrap();
    dir
}

#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn a_kernel_of_the_users_own_boots_and_takes_our_driver() {
    // The stock kernel is in the cache after any boot.
    let (_, stock, _) = run(&["--", "uname", "-r"]);
    let dir = built_kernel();
    let path = dir.path().to_str().unwrap();
    let script = "uname -r; echo hi >/dev/globalfifo; head -c 3 /dev/globalfifo; ls /lib/modules/*/kernel/fs";
    let (status, stdout, stderr) = run(&["--kernel", path, "--", "sh", "-c", script]);
    assert_eq!(
        (status, stdout.as_str()),
        (0, format!("{stock}hi\noverlayfs\n").as_str()),
        "{stderr}"
    );
}

#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn a_panic_and_a_time_limit_end_with_125_and_the_consoles_tail() {
    let (status, _, stderr) = run(&["--", "sh", "-c", "echo c >/proc/sysrq-trigger; sleep 60"]);
    assert_eq!(status, 125, "{stderr}");
    assert!(
        stderr.contains("kernel panicked") && stderr.contains("  | ["),
        "{stderr}"
    );
    let (status, _, stderr) = run(&["--timeout", "1", "--", "sleep", "60"]);
    assert_eq!(status, 125, "{stderr}");
    assert!(stderr.contains("had not ended after 1 s"), "{stderr}");
}

/// Bytes pushed through the control socket wake whoever waits for SIGIO in the guest, once, and can be read there.
#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn a_push_from_the_host_is_one_signal_and_its_bytes_in_the_guest() {
    let dir = tempfile::tempdir().unwrap();
    let control = dir.path().join("control");
    let script = "monitor & read go; kill $!; head -c 5 /dev/globalfifo";
    let mut lab = command(&["-q", "run", "--fifo", "null", "--control"]);
    lab.arg(&control).args(["--", "sh", "-c", script]);
    let mut lab = lab
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(lab.stdout.take().unwrap());
    let mut stderr = BufReader::new(lab.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert!(line.starts_with("monitoring /dev/globalfifo"), "{line}");
    let mut host = UnixStream::connect(&control).unwrap();
    host.write_all(b"{\"command\":\"push\",\"fifo\":0,\"text\":\"hello\"}\n")
        .unwrap();
    line.clear();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "receive a signal from globalfifo,signalnum:29\n");
    drop(lab.stdin.take());
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "hello");
    assert!(lab.wait().unwrap().success());
    assert!(!control.exists());
}

/// The lab in a mount namespace of its own, where `$D` is a disk of so many KiB.
fn beside_a_small_disk(kib: u32, script: &str) -> (i32, String, String) {
    let dir = tempfile::tempdir().unwrap();
    let mut unshare = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        unshare.arg("--map-root-user");
    }
    let output = unshare
        .args(["--mount", "sh", "-c"])
        .arg(format!(
            r#"D="$1"; mount -t tmpfs -o size={kib}k lab "$D" && {script}"#
        ))
        .arg("sh")
        .arg(dir.path())
        .arg(env!("CARGO_BIN_EXE_fifo-lab"))
        .output()
        .unwrap();
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// A console holds some 30 KB when the guest is up.
#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn a_users_console_on_a_full_disk_is_told_and_the_status_is_1() {
    let script = r#"{ "$2" -q run --console "$D/console" -- echo hello; S=$?; tail -c 4097 "$D/console" | wc -c; exit $S; }"#;
    let (status, stdout, stderr) = beside_a_small_disk(8, script);
    // The guest has not waited for the disk, and what the disk could take is there.
    assert_eq!((status, &*stdout), (1, "hello\n4097\n"), "{stderr}");
    assert!(
        stderr.contains("/console is cut: ") && stderr.contains("bytes are missing: No space left"),
        "{stderr}"
    );
}

#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn a_temporary_directory_that_is_full_while_the_machine_runs_is_told_and_the_status_is_the_commands()
 {
    let script = r#"TMPDIR="$D" "$2" -q run -- sh -c 'echo hello; exit 3'"#;
    let (status, stdout, stderr) = beside_a_small_disk(24, script);
    assert_eq!((status, &*stdout), (3, "hello\n"), "{stderr}");
    assert!(
        stderr.contains("warning: the console in ") && stderr.contains("No space left"),
        "{stderr}"
    );
}

#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn what_the_kernel_complains_of_is_shown() {
    let (status, _, stderr) = run(&[
        "--",
        "sh",
        "-c",
        "echo '<4>WARNING: this is a drill' >/dev/kmsg",
    ]);
    assert_eq!(status, 0);
    assert!(stderr.contains("WARNING: this is a drill"), "{stderr}");
    assert!(
        stderr.contains("the first in its place:\n  | ["),
        "{stderr}"
    );
}

#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn a_bad_fifo_is_the_users_mistake() {
    let (status, _, stderr) = run(&["--fifo", "loopback,capacity=zero", "--", "true"]);
    assert_eq!(status, 2, "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn two_fifos_have_two_nodes_and_wildcards_are_the_shells() {
    let (status, stdout, stderr) = run(&[
        "--fifo",
        "loopback",
        "--fifo",
        "loopback,capacity=65536",
        "--",
        "sh",
        "-c",
        "ls /dev/globalfifo*",
    ]);
    assert_eq!(
        (status, stdout.as_str()),
        (0, "/dev/globalfifo\n/dev/globalfifo0\n/dev/globalfifo1\n"),
        "{stderr}"
    );
}

#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn writes_to_the_guests_root_are_forgotten() {
    assert_eq!(
        run(&[
            "--",
            "sh",
            "-c",
            "echo x >/etc/lab-was-here && rm /usr/bin/head"
        ])
        .0,
        0
    );
    assert_eq!(
        run(&[
            "--",
            "sh",
            "-c",
            "test ! -e /etc/lab-was-here && test -e /usr/bin/head"
        ])
        .0,
        0
    );
}

/// Who is in a mere chroot may not make them.
#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn an_ordinary_user_of_the_guest_may_make_user_namespaces() {
    let script = "setpriv --reuid=1000 --regid=1000 --clear-groups unshare --user --pid --fork --map-root-user id -u";
    let (status, stdout, stderr) = run(&["--driver", "none", "--", "sh", "-c", script]);
    assert_eq!((status, stdout.as_str()), (0, "0\n"), "{stderr}");
}

/// Processes whose command line mentions this, but for the lab's own.
fn processes_with(text: &str) -> Vec<String> {
    pids_with(text).into_iter().map(|(_, line)| line).collect()
}

/// The same, with their ids.
fn pids_with(text: &str) -> Vec<(i32, String)> {
    let own = std::process::id().to_string();
    let pids = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    let lines = pids
        .filter(|path: &PathBuf| !path.ends_with(&own))
        .filter_map(|path| {
            let pid = path.file_name()?.to_str()?.parse().ok()?;
            Some((pid, fs::read(path.join("cmdline")).ok()?))
        });
    lines
        .map(|(pid, line)| (pid, String::from_utf8_lossy(&line).replace('\0', " ")))
        .filter(|(_, line)| line.contains(text))
        .collect()
}

/// The run directories' base is the test's own, so that what a lab leaves can be told from other labs'.
fn running_lab(base: &Path) -> std::process::Child {
    let mut child = command(&["-q", "run", "--", "sh", "-c", "echo up; sleep 600"])
        .env("TMPDIR", base)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 3];
    Read::read_exact(child.stdout.as_mut().unwrap(), &mut first).unwrap();
    assert_eq!(&first, b"up\n");
    child
}

fn signal(child: &std::process::Child, name: &str) {
    signal_to(&child.id().to_string(), name);
}

fn signal_to(pid: &str, name: &str) {
    assert!(
        Command::new("kill")
            .arg(format!("-{name}"))
            .arg(pid)
            .status()
            .unwrap()
            .success()
    );
}

#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn a_signal_ends_everything_that_was_started() {
    for (name, status) in [("INT", 130), ("TERM", 143)] {
        let base = tempfile::tempdir().unwrap();
        let mut child = running_lab(base.path());
        let text = base.path().to_str().unwrap();
        assert!(!processes_with(text).is_empty());
        signal(&child, name);
        assert_eq!(child.wait().unwrap().code(), Some(status), "{name}");
        assert_eq!(processes_with(text), Vec::<String>::new(), "{name}");
        assert_eq!(
            fs::read_dir(base.path()).unwrap().count(),
            0,
            "{name}: files are left"
        );
    }
}

#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn a_killed_lab_leaves_no_process() {
    let base = tempfile::tempdir().unwrap();
    let mut child = running_lab(base.path());
    signal(&child, "KILL");
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    let deadline = Instant::now() + Duration::from_secs(10);
    while !processes_with(base.path().to_str().unwrap()).is_empty() {
        assert!(
            Instant::now() < deadline,
            "{:?}",
            processes_with(base.path().to_str().unwrap())
        );
        std::thread::yield_now();
    }
}

/// The device is a process of its own. Without it there is nothing to go on with.
#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn a_killed_daemon_ends_the_machine_and_the_lab_says_so() {
    let base = tempfile::tempdir().unwrap();
    let script = "cat /dev/globalfifo & echo up; wait";
    let mut lab = command(&["-q", "run", "--", "sh", "-c", script])
        .env("TMPDIR", base.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 3];
    lab.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    let text = base.path().to_str().unwrap();
    let daemon = pids_with(text)
        .into_iter()
        .find(|(_, line)| line.contains("vhost-device-fifo --socket-path"));
    signal_to(&daemon.unwrap().0.to_string(), "KILL");
    let output = lab.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{stderr}");
    assert!(
        stderr.contains("vhost-device-fifo ended while the guest was running"),
        "{stderr}"
    );
    assert_eq!(processes_with(text), Vec::<String>::new());
}

/// As the kernel does when memory is short: nobody else is to blame.
#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn a_killed_qemu_is_named_and_nothing_is_left() {
    let base = tempfile::tempdir().unwrap();
    let lab = command(&["-q", "run", "--", "sh", "-c", "echo up; sleep 600"])
        .env("TMPDIR", base.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut lab = lab.unwrap();
    let mut first = [0; 3];
    lab.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    let text = base.path().to_str().unwrap();
    let qemu = pids_with(text)
        .into_iter()
        .find(|(_, line)| line.contains("bin/qemu-system-x86_64"));
    signal_to(&qemu.unwrap().0.to_string(), "KILL");
    let output = lab.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{stderr}");
    assert!(
        stderr.contains("QEMU was killed by signal 9 (out of memory?)"),
        "{stderr}"
    );
    assert!(stderr.contains("the whole console: "), "{stderr}");
    assert_eq!(processes_with(text), Vec::<String>::new());
    assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);
}

/// The daemon of a second device, which the lab does not know of, so that the machine goes on without it. Nothing tells the driver.
#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn a_process_that_waits_for_a_dead_daemon_can_be_ended_and_the_driver_unloaded() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("second.sock");
    let mut daemon = Command::new(daemon::program())
        .arg("--socket-path")
        .arg(&socket)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let script = r#"
cat /dev/globalfifo1 & reader=$!
until grep -q globalfifo /proc/$reader/stack; do :; done
echo waiting
read -r killed
kill -TERM $reader; wait $reader; echo "reader $?"
head -c 5 /dev/zero >/dev/globalfifo1 && echo written
timeout 2 sh -c 'head -c 100000 /dev/zero >/dev/globalfifo1'; echo "writer $?"
echo mine >/dev/globalfifo0; head -n 1 /dev/globalfifo0
rmmod globalfifo; echo "rmmod $?"
"#;
    let chardev = format!("socket,id=second,path={}", socket.display());
    let device = "vhost-user-test-device-pci,chardev=second,virtio-id=37,num_vqs=4,config_size=12"
        .to_owned();
    let words = ["-chardev".to_owned(), chardev, "-device".to_owned(), device];
    let words = words.map(|word| format!("--qemu-arg={word}"));
    let mut lab = command(&["-q", "run"])
        .args(words)
        .args(["--", "sh", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(lab.stdout.take().unwrap());
    let mut said = String::new();
    while !said.ends_with("waiting\n") && stdout.read_line(&mut said).unwrap() > 0 {}
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    lab.stdin.take().unwrap().write_all(b"killed\n").unwrap();
    said.clear();
    stdout.read_to_string(&mut said).unwrap();
    let output = lab.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        said, "reader 143\nwritten\nwriter 124\nmine\nrmmod 0\n",
        "{stderr}"
    );
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(!stderr.contains("kernel says"), "{stderr}");
}
