// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The client before daemons of all kinds, which are threads that say what a test has them say.

use std::os::unix::net::UnixListener;
use std::thread;
use std::thread::JoinHandle;

use rstest::rstest;
use tempfile::TempDir;

use super::*;

const HELLO: &str = r#"{"hello":"a daemon","version":"9","protocol":1}"#;

/// A daemon that greets, and gives one answer to each request. It ends with the requests that came.
struct Daemon {
    dir: TempDir,
    thread: JoinHandle<Vec<String>>,
}

impl Daemon {
    fn new(greeting: &'static str, answers: &'static [&'static str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        let thread = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut stream = BufReader::new(stream);
            let mut requests = Vec::new();
            say(stream.get_mut(), greeting);
            for answer in answers {
                let mut request = String::new();
                stream.read_line(&mut request).unwrap();
                requests.push(request.trim_end().to_owned());
                say(stream.get_mut(), answer);
            }
            requests
        });
        Self { dir, thread }
    }

    fn client(&self) -> Result<Client, ClientError> {
        Client::connect(&self.dir.path().join("s"))
    }

    fn requests(self) -> Vec<String> {
        self.thread.join().unwrap()
    }
}

/// A client that is gone is no failure of the daemon.
fn say(stream: &mut UnixStream, line: &str) {
    let _ = stream.write_all(format!("{line}\n").as_bytes());
}

#[rstest]
#[case("SSH-2.0", "is not a control socket")]
#[case("{}", "is not a control socket")]
#[case(
    r#"{"hello":"a daemon","version":"9","protocol":2}"#,
    "version 2 of the protocol"
)]
#[case(
    r#"{"ok":false,"error":{"code":"busy","message":"too many clients"}}"#,
    "too many clients"
)]
fn a_daemon_that_is_none_or_does_not_want_this_client(
    #[case] greeting: &'static str,
    #[case] part: &str,
) {
    let error = Daemon::new(greeting, &[]).client().unwrap_err().to_string();
    assert!(error.contains(part), "{error}");
}

#[test]
fn a_socket_that_is_missing_or_dead() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let missing = Client::connect(&path).unwrap_err();
    assert!(matches!(missing, ClientError::Missing(_)), "{missing}");
    drop(UnixListener::bind(&path).unwrap());
    let dead = Client::connect(&path).unwrap_err();
    assert!(matches!(dead, ClientError::Dead(_)), "{dead}");
}

#[test]
fn each_command_is_a_method() {
    let daemon = Daemon::new(
        HELLO,
        &[
            r#"{"ok":true,"pushed":2,"free":0}"#,
            r#"{"ok":true,"base64":"AP8=","pulled":2,"left":7}"#,
            r#"{"ok":true,"cleared":5}"#,
            r#"{"ok":true}"#,
            r#"{"ok":true,"fault":3}"#,
            r#"{"ok":true,"faults":[{"fault":3,"spec":"slow","opportunities":2,"strikes":1,"over":false}]}"#,
            r#"{"ok":true}"#,
            r#"{"ok":true,"removed":0}"#,
            r#"{"ok":true,"metrics":"text"}"#,
        ],
    );
    let mut client = daemon.client().unwrap();
    assert_eq!(
        client.push(1, &[0, 255, 1]).unwrap(),
        Pushed { pushed: 2, free: 0 }
    );
    assert_eq!(client.pull(1, 9).unwrap(), (vec![0, 255], 7));
    assert_eq!(client.clear(1).unwrap(), 5);
    client.hang_up(1, false).unwrap();
    assert_eq!(client.add_fault("slow").unwrap(), 3);
    assert_eq!(client.faults().unwrap()[0].strikes, 1);
    client.remove_fault(3).unwrap();
    assert_eq!(client.clear_faults().unwrap(), 0);
    assert_eq!(client.metrics().unwrap(), "text");
    let sent: Vec<_> = daemon
        .requests()
        .iter()
        .map(|line| Request::parse(line.as_bytes()).unwrap().command)
        .collect();
    let expected = [
        Command::Push {
            fifo: 1,
            text: None,
            base64: Some("AP8B".to_owned()),
        },
        Command::Pull { fifo: 1, max: 9 },
        Command::Clear { fifo: 1 },
        Command::Hangup { fifo: 1, on: false },
        Command::FaultAdd {
            spec: "slow".to_owned(),
        },
        Command::FaultList {},
        Command::FaultRemove { fault: 3 },
        Command::FaultClear {},
        Command::Metrics {},
    ];
    assert_eq!(sent, expected);
}

#[rstest]
#[case(
    r#"{"ok":false,"error":{"code":"no-such-fifo","message":"there is no FIFO 9"}}"#,
    "there is no FIFO 9"
)]
#[case(r#"{"ok":true}"#, "cannot understand the daemon's answer")]
#[case(r#"{"ok""#, "cannot understand the daemon's answer")]
fn an_answer_that_is_a_refusal_or_none(#[case] answer: &'static str, #[case] part: &str) {
    let daemon = Daemon::new(HELLO, Vec::leak(vec![answer]));
    let error = daemon.client().unwrap().clear(9).unwrap_err().to_string();
    assert!(error.contains(part), "{error}");
}

/// The daemon ends after one event: the iterator says so once.
#[test]
fn a_watcher_gets_events_and_then_the_end() {
    let daemon = Daemon::new(
        HELLO,
        &["{\"ok\":true}\n{\"event\":\"vmm\",\"connected\":true,\"connections\":1}"],
    );
    let mut events = daemon.client().unwrap().watch(&[2]).unwrap();
    assert_eq!(
        events.next().unwrap().unwrap(),
        Event::Vmm {
            connected: true,
            connections: 1
        }
    );
    assert!(matches!(events.next(), Some(Err(ClientError::Ended))));
    assert!(events.next().is_none());
    assert_eq!(daemon.requests(), [r#"{"command":"watch","fifos":[2]}"#]);
}

#[test]
fn a_daemon_that_is_stopped_is_not_waited_for_longer_than_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let accepted = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        say(&mut stream, HELLO);
        stream
    });
    let mut client = Client::connect_within(&path, Duration::from_millis(50)).unwrap();
    let error = client.status().unwrap_err();
    assert!(matches!(error, ClientError::Silent(_)), "{error}");
    drop(accepted.join().unwrap());
}
