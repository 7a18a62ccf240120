// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Machines that are switched off, restarted, paused, or get another kernel while FIFOs are in use. Ignored by
//! plain `cargo test`, as tests/boot.rs is; knows `cargo lab run` and QEMU's monitor, not how the lab works.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

mod common;

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use common::command;

/// Longer than a machine takes to come up, or to do any of this, on a busy host.
const LIMIT: Duration = Duration::from_secs(240);

/// Longer than the driver waits for the device: 5 s in fsync, 10 s for an answer on the control queue.
const PAUSE: Duration = Duration::from_secs(12);

/// What tests/power/power.c writes.
fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|n| u8::try_from(n % 251).unwrap()).collect()
}

/// A folder with that program in it.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/power/power.c");
    let compiled = command(&["cc"])
        .arg(source)
        .arg("-o")
        .arg(dir.path().join("power"))
        .output()
        .unwrap();
    assert!(
        compiled.status.success(),
        "{}",
        String::from_utf8_lossy(&compiled.stderr)
    );
    dir
}

/// A lab, ended with the test that failed.
struct Lab(Child);

impl Lab {
    fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    /// What it said on standard error, when it has ended with the machine.
    fn over(mut self) -> String {
        let mut said = String::new();
        let mut stderr = self.0.stderr.take().unwrap();
        stderr.read_to_string(&mut said).unwrap();
        assert_eq!(self.0.wait().unwrap().code(), Some(125), "{said}");
        assert!(said.contains("powered itself off or restarted"), "{said}");
        said
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // It is over already, or its machine is of no more use.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Connects as soon as somebody listens.
fn connect(path: &Path) -> UnixStream {
    let deadline = Instant::now() + LIMIT;
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < deadline, "{}: {error}", path.display()),
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Runs the program in a machine, which ends with it, and gives what came out at the host's end of the FIFO.
fn last_bytes(how: &str, count: usize) -> Vec<u8> {
    let dir = folder();
    let socket = dir.path().join("data");
    let fifo = format!("unix={},capacity=65536", socket.display());
    let share = dir.path().to_str().unwrap();
    let words = ["-q", "run", "--fifo", &fifo, "--share", share, "--"];
    let program = ["./power", how, "/dev/globalfifo0", &count.to_string()];
    let lab = command(&words)
        .args(program)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut received = Vec::new();
    connect(&socket).read_to_end(&mut received).unwrap();
    let output = lab.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{stderr}");
    assert!(
        stderr.contains("powered itself off or restarted"),
        "{stderr}"
    );
    received
}

#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn all_bytes_accepted_before_a_power_off_reach_the_other_end() {
    let received = last_bytes("off", 1_000_000);
    assert_eq!(received.len(), 1_000_000);
    assert!(received == bytes(1_000_000));
}

#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn all_bytes_accepted_before_a_restart_reach_the_other_end() {
    let received = last_bytes("restart", 300_000);
    assert_eq!(received.len(), 300_000);
    assert!(received == bytes(300_000));
}

/// The next kernel finds the bytes that the last one left in the FIFO.
#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn unread_bytes_outlive_the_kernel_by_kexec() {
    const COUNT: usize = 3000;
    let dir = folder();
    let plan = command(&["-q", "run", "--dry-run"]).output().unwrap();
    let plan = String::from_utf8(plan.stdout).unwrap();
    let mut words = plan.split_whitespace();
    words.find(|word| *word == "-kernel").unwrap();
    let kernel = Path::new(words.next().unwrap()).with_file_name("vmlinuz");
    fs::copy(kernel, dir.path().join("kernel")).unwrap();
    // The next kernel has no agent: it says what it found in a file.
    let next = format!(
        "PATH=/usr/sbin:/usr/bin:/sbin:/bin\n\
         mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs devtmpfs /dev\n\
         insmod /mnt/globalfifo.ko 2>/mnt/complaint\n\
         head -c {COUNT} /dev/globalfifo0 >/mnt/found 2>>/mnt/complaint\n\
         sync; exec poweroff -f\n"
    );
    fs::write(dir.path().join("next"), next).unwrap();
    let first = format!(
        "cp \"$(modinfo -n globalfifo)\" globalfifo.ko\n\
         words=\"$(cat /proc/cmdline) root=root rootfstype=virtiofs ro\"\n\
         init='init=/bin/busybox -- sh -c \"/bin/busybox mount -t virtiofs share0 /mnt && exec /bin/busybox sh /mnt/next\"'\n\
         exec ./power kexec /dev/globalfifo0 {COUNT} kernel \"$words $init\"\n"
    );
    fs::write(dir.path().join("first"), first).unwrap();
    let share = dir.path().to_str().unwrap();
    let words = ["-q", "run", "--timeout", "240", "--share", share, "--"];
    let lab = Lab::start(
        command(&words)
            .args(["sh", "./first"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped()),
    );
    let said = lab.over();
    let complaint = fs::read_to_string(dir.path().join("complaint")).unwrap_or_default();
    assert_eq!(complaint, "", "{said}");
    let found = fs::read(dir.path().join("found")).unwrap_or_else(|error| {
        panic!("the next kernel left nothing: {error}\n{said}");
    });
    assert!(found == bytes(COUNT), "{} bytes", found.len());
}

/// QEMU's monitor.
struct Monitor(BufReader<UnixStream>);

impl Monitor {
    fn connect(path: &Path) -> Self {
        let mut monitor = Self(BufReader::new(connect(path)));
        monitor.line();
        monitor.execute("qmp_capabilities");
        monitor
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "QEMU has closed its monitor");
        line
    }

    fn execute(&mut self, what: &str) {
        let order = format!("{{\"execute\":\"{what}\"}}\n");
        self.0.get_ref().write_all(order.as_bytes()).unwrap();
        loop {
            let answer = self.line();
            assert!(!answer.contains("\"error\""), "{what}: {answer}");
            if answer.contains("\"return\"") {
                return;
            }
        }
    }
}

/// Lines of a pipe as they come.
fn lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines() {
            if line.map(|line| tell.send(line)).is_err() {
                break;
            }
        }
    });
    told
}

/// A machine that runs tests/power/pause.py.
struct Paused {
    lab: Lab,
    said: Receiver<String>,
    monitor: Monitor,
    control: UnixStream,
}

impl Paused {
    fn start(dir: &Path) -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/power/pause.py");
        fs::copy(source, dir.join("pause.py")).unwrap();
        let (qmp, control) = (dir.join("qmp"), dir.join("control"));
        let monitor = format!("--qemu-arg=unix:{},server=on,wait=off", qmp.display());
        let mut lab = command(&["-q", "run", "--qemu-arg=-qmp", &monitor, "--control"]);
        lab.arg(&control)
            .args(["--share", dir.to_str().unwrap(), "--"])
            .args(["python3", "pause.py"]);
        let mut lab = Lab::start(
            lab.stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::inherit()),
        );
        let said = lines(lab.0.stdout.take().unwrap());
        assert_eq!(said.recv_timeout(LIMIT).unwrap(), "ready");
        Self {
            lab,
            said,
            monitor: Monitor::connect(&qmp),
            control: connect(&control),
        }
    }

    /// Has the device serve a queue late, the guest wait for that, and the machine be paused meanwhile.
    fn pause_in(&mut self, call: &str, queue: &str) {
        let order =
            format!("{{\"command\":\"fault-add\",\"spec\":\"stall,{queue},count=1,delay=4s\"}}\n");
        self.control.write_all(order.as_bytes()).unwrap();
        let mut answer = BufReader::new(self.control.try_clone().unwrap());
        let mut line = String::new();
        while !line.contains("\"ok\"") {
            line.clear();
            answer.read_line(&mut line).unwrap();
        }
        assert!(line.contains("\"ok\":true"), "{line}");
        let mut stdin = self.lab.0.stdin.as_ref().unwrap();
        stdin.write_all(format!("{call}\n").as_bytes()).unwrap();
        assert_eq!(self.said.recv_timeout(LIMIT).unwrap(), "waits", "{call}");
        self.monitor.execute("stop");
        // What is tested is how long the pause is; and that the call was not over before.
        let during = self.said.recv_timeout(PAUSE);
        assert!(
            during.is_err(),
            "{call} was over before the pause: {during:?}"
        );
        self.monitor.execute("cont");
        assert_eq!(self.said.recv_timeout(LIMIT).unwrap(), "done", "{call}");
    }
}

/// The guest's clock stands still while its CPUs do, so that no limit of the driver's is over.
#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn a_pause_longer_than_the_drivers_limits_fails_no_call() {
    let dir = tempfile::tempdir().unwrap();
    let mut machine = Paused::start(dir.path());
    machine.pause_in("fsync", "fifo=0,on=tx");
    machine.pause_in("clear", "on=control");
    drop(machine.lab.0.stdin.take());
    assert_eq!(machine.said.recv_timeout(LIMIT).unwrap(), "PASS");
    assert!(machine.lab.0.wait().unwrap().success());
}
