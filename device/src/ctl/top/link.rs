// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The daemon, asked by a thread of its own: a daemon that is slow keeps no key waiting.

use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;

use crate::control::protocol::Cleared;
use crate::control::protocol::Client;
use crate::control::protocol::ClientError;
use crate::control::protocol::Command;
use crate::control::protocol::Pushed;
use crate::control::protocol::Status;
use crate::ctl::CtlError;
use crate::ctl::read;

/// What the thread has to tell.
#[derive(Debug)]
pub enum News {
    /// The device now.
    Status(Box<Status>),
    /// What a command has led to, or why it was refused.
    Done(String),
    /// There is no more to come.
    Ended(CtlError),
}

/// The thread's other end. The thread ends when this is dropped.
#[derive(Debug)]
pub struct Link {
    orders: Sender<Command>,
    news: Receiver<News>,
}

impl Link {
    /// Has the daemon looked at once, then after each interval, and after each command.
    pub fn new(client: Client, interval: Duration) -> Self {
        let (orders, ordered) = mpsc::channel();
        let (told, news) = mpsc::channel();
        thread::spawn(move || {
            if let Err(error) = serve(client, interval, &ordered, &told) {
                // Nobody is there to be told once the panel is gone.
                let _ = told.send(News::Ended(error));
            }
        });
        Self { orders, news }
    }

    /// Has a command carried out.
    pub fn order(&self, command: Command) {
        // A thread that has ended has said why.
        let _ = self.orders.send(command);
    }

    /// What has come since the last time.
    pub fn news(&self) -> impl Iterator<Item = News> {
        self.news.try_iter()
    }
}

fn serve(
    mut client: Client,
    interval: Duration,
    orders: &Receiver<Command>,
    news: &Sender<News>,
) -> Result<(), CtlError> {
    let mut next = Instant::now();
    loop {
        let left = next.saturating_duration_since(Instant::now());
        let told = match orders.recv_timeout(left) {
            Ok(command) => News::Done(outcome(&mut client, &command)?),
            Err(RecvTimeoutError::Timeout) => {
                next = Instant::now() + interval;
                News::Status(Box::new(client.status()?))
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        let done = matches!(told, News::Done(_));
        if news.send(told).is_err() {
            return Ok(());
        }
        if done {
            // Its effect is to be seen now.
            next = Instant::now();
        }
    }
}

/// What a command has led to, in words.
fn outcome(client: &mut Client, command: &Command) -> Result<String, CtlError> {
    match client.ask(command.clone()) {
        Ok(answer) => words(command, answer),
        Err(ClientError::Refused(message)) => Ok(message),
        Err(error) => Err(error.into()),
    }
}

fn words(command: &Command, answer: Value) -> Result<String, CtlError> {
    Ok(match command {
        Command::Push { fifo, text, .. } => {
            let offered = text.as_ref().map_or(0, String::len);
            let pushed = read::<Pushed>(answer)?.pushed;
            match pushed == offered {
                true => format!("FIFO {fifo}: {pushed} bytes pushed"),
                false => format!("FIFO {fifo}: only {pushed} of {offered} bytes fitted"),
            }
        }
        Command::Clear { fifo } => {
            let cleared = read::<Cleared>(answer)?.cleared;
            format!("FIFO {fifo}: {cleared} bytes discarded")
        }
        Command::Hangup { fifo, on: true } => format!("FIFO {fifo}: hung up"),
        Command::Hangup { fifo, on: false } => format!("FIFO {fifo}: no longer hung up"),
        Command::FaultAdd { spec } => format!("fault added: {spec}"),
        _ => "done".to_owned(),
    })
}
