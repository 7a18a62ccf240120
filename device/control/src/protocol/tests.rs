// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Requests and answers as clients write and read them.

use rstest::rstest;

use super::*;

#[rstest]
#[case(r#"{"command":"status"}"#, Command::Status {})]
#[case(r#"{"command":"push","fifo":1,"text":"a"}"#,
       Command::Push { fifo: 1, text: Some("a".into()), base64: None })]
#[case(r#"{"command":"push","fifo":1,"base64":"AA=="}"#,
       Command::Push { fifo: 1, text: None, base64: Some(encode(&[0])) })]
#[case(r#"{"command":"pull","fifo":0}"#, Command::Pull { fifo: 0, max: MAX_BYTES })]
#[case(r#"{"command":"hangup","fifo":0}"#, Command::Hangup { fifo: 0, on: true })]
#[case(r#"{"command":"fault-add","spec":"slow"}"#, Command::FaultAdd { spec: "slow".into() })]
#[case(r#"{"command":"fault-clear"}"#, Command::FaultClear {})]
#[case(r#" {"fifos":[2],"command":"watch"} "#, Command::Watch { fifos: vec![2] })]
fn requests(#[case] line: &str, #[case] command: Command) {
    let request = Request::parse(line.as_bytes()).unwrap();
    assert_eq!(request, Request { id: None, command });
    let again = Request::parse(request.to_line().as_bytes()).unwrap();
    assert_eq!(again, request);
}

#[rstest]
#[case("", Code::BadJson, "one JSON object")]
#[case("hello", Code::BadJson, "one JSON object")]
#[case("[1]", Code::BadJson, "one JSON object")]
#[case("\u{1}\u{7f}", Code::BadJson, "one JSON object")]
#[case(r#"{"command":"status"} {}"#, Code::BadJson, "trailing")]
#[case("{}", Code::BadRequest, "'command' is missing")]
#[case(r#"{"command":7}"#, Code::BadRequest, "must be a string")]
#[case(r#"{"command":"explode"}"#, Code::UnknownCommand, "use one of status")]
#[case(
    r#"{"command":"status","fifo":0}"#,
    Code::BadRequest,
    "unknown field `fifo`"
)]
#[case(r#"{"command":"clear"}"#, Code::BadRequest, "missing field `fifo`")]
#[case(
    r#"{"command":"clear","fifo":-1}"#,
    Code::BadRequest,
    "clear: invalid value"
)]
#[case(r#"{"command":"clear","fifo":70000}"#, Code::BadRequest, "70000")]
#[case(r#"{"command":"clear","fifo":"0"}"#, Code::BadRequest, "invalid type")]
#[case(
    r#"{"command":"push","fifo":0,"text":"","more":1}"#,
    Code::BadRequest,
    "push:"
)]
#[case(r#"{"command":"fault-add"}"#, Code::BadRequest, "missing field `spec`")]
#[case(
    r#"{"command":"fault-remove","fault":-1}"#,
    Code::BadRequest,
    "fault-remove:"
)]
#[case(r#"{"command":"push","fifo":0,"text":5}"#, Code::BadRequest, "push:")]
#[case(r#"{"command":"status","id":[1]}"#, Code::BadRequest, "'id' must be")]
fn bad_requests(#[case] line: &str, #[case] code: Code, #[case] part: &str) {
    let failure = Request::parse(line.as_bytes()).unwrap_err().failure;
    assert_eq!(failure.code, code, "{failure:?}");
    assert!(failure.message.contains(part), "{failure:?}");
}

/// What a client sends is not sent back to it in full.
#[test]
fn messages_are_short() {
    let name = "x".repeat(60_000);
    for line in [
        format!(r#"{{"command":"{name}"}}"#),
        format!(r#"{{"command":"status","{name}":1}}"#),
        format!(r#"{{"command":"clear","fifo":"{name}"}}"#),
        format!(r#""{name}""#),
    ] {
        let failure = Request::parse(line.as_bytes()).unwrap_err().failure;
        assert!(failure.message.len() < 500, "{failure:?}");
    }
}

/// The recursion of JSON costs no stack.
#[test]
fn deep_nesting_is_refused() {
    let line = format!(r#"{{"command":{}"#, "[".repeat(60_000));
    let failure = Request::parse(line.as_bytes()).unwrap_err().failure;
    assert_eq!(failure.code, Code::BadJson);
}

#[test]
fn an_id_comes_back_with_a_failure_too() {
    let bad = Request::parse(br#"{"id":"a","command":"x"}"#).unwrap_err();
    assert_eq!(bad.id, Some("a".into()));
    let answer = Answer::new(bad.id, Err(bad.failure));
    let line = serde_json::to_string(&answer).unwrap();
    assert!(line.starts_with(r#"{"id":"a","ok":false,"error":{"code":"unknown-command""#));
    let answer = Answer::new(Some(7.into()), Ok(Outcome::Done {}));
    assert_eq!(
        serde_json::to_string(&answer).unwrap(),
        r#"{"id":7,"ok":true}"#
    );
}

#[rstest]
#[case(None, None, "as 'text' or as 'base64'")]
#[case(Some("a".into()), Some("YQ==".into()), "as 'text' or as 'base64'")]
#[case(None, Some("=".into()), "is not base64")]
#[case(Some("x".repeat(MAX_BYTES + 1)), None, "too many")]
fn bytes_that_are_none(
    #[case] text: Option<String>,
    #[case] base64: Option<String>,
    #[case] part: &str,
) {
    let failure = decode(text, base64).unwrap_err();
    assert_eq!(failure.code, Code::BadRequest);
    assert!(failure.message.contains(part), "{failure:?}");
}

#[test]
fn bytes_of_any_value_survive() {
    let bytes: Vec<u8> = (0..=255).collect();
    assert_eq!(decode(None, Some(encode(&bytes))).unwrap(), bytes);
}

/// The most bytes that a push may carry fit into the longest line.
#[test]
fn the_limits_go_together() {
    let line = Request {
        id: Some("i".repeat(MAX_ID).into()),
        command: Command::Push {
            fifo: u16::MAX,
            text: None,
            base64: Some(encode(&[0xff; MAX_BYTES])),
        },
    };
    assert!(line.to_line().len() <= MAX_LINE);
}
