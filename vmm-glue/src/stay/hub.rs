// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Relays frames between the guest's agent and any number of clients, each of which has one command.
//!
//! A client numbers its command as it likes; here it gets a channel of its own. Nobody waits for a client: what it has not taken yet is queued,
//! within the credit that it gives, and a guest that sends more loses that client. This file must not know what frames mean beyond that.

use std::collections::HashMap;
use std::io;
use std::io::BufReader;
use std::net::Shutdown;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Instant;

use fifo_lab_agent::frame::Frame;
use fifo_lab_agent::frame::Note;
use fifo_lab_agent::frame::Payload;
use fifo_lab_agent::frame::WINDOW;

/// Bytes that may wait for a client: full windows of both streams in frames of a few bytes each.
const QUEUE_MAX: usize = 2 * WINDOW * 20;

/// Told of every client that comes or goes, with how many there are then; or that the guest's side is of no use any more.
type Tell = Box<dyn Fn(Change) + Send + Sync>;

/// What has changed.
#[derive(Debug)]
pub enum Change {
    /// There are so many clients.
    Clients(usize),
    /// What the guest sends makes no sense.
    Nonsense(io::Error),
}

/// The relay.
pub struct Hub {
    guest: Mutex<UnixStream>,
    clients: Mutex<Clients>,
    tell: Tell,
}

struct Clients {
    next: u32,
    open: HashMap<u32, Arc<Client>>,
    idle_since: Instant,
}

struct Client {
    stream: UnixStream,
    queue: Sender<Frame>,
    /// What the frames in the queue cost.
    queued: AtomicUsize,
}

impl Hub {
    /// Starts relaying.
    pub fn start(guest: UnixStream, listener: UnixListener, tell: Tell) -> io::Result<Arc<Self>> {
        let from_guest = guest.try_clone()?;
        let hub = Arc::new(Self {
            guest: Mutex::new(guest),
            clients: Mutex::new(Clients {
                next: 0,
                open: HashMap::new(),
                idle_since: Instant::now(),
            }),
            tell,
        });
        let reader = hub.clone();
        thread::spawn(move || {
            if let Err(err) = reader.hear_guest(from_guest) {
                (reader.tell)(Change::Nonsense(err));
            }
            lock(&reader.clients).open.values().for_each(|client| {
                client.hang_up();
            });
        });
        let acceptor = hub.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let hub = acceptor.clone();
                thread::spawn(move || drop(hub.attend(stream)));
            }
        });
        Ok(hub)
    }

    /// Since when there has been no client; `None` while there is one.
    pub fn idle_since(&self) -> Option<Instant> {
        let clients = lock(&self.clients);
        clients.open.is_empty().then_some(clients.idle_since)
    }

    fn hear_guest(&self, guest: UnixStream) -> io::Result<()> {
        let mut guest = BufReader::new(guest);
        while let Some(frame) = Frame::read(&mut guest)? {
            // A client that has gone is missed by nobody.
            if let Some(client) = lock(&self.clients).open.get(&frame.channel) {
                client.pass(frame);
            }
        }
        Ok(())
    }

    /// Passes on what a client sends until it goes.
    fn attend(&self, stream: UnixStream) -> io::Result<()> {
        let (mut reader, writer) = (BufReader::new(stream.try_clone()?), stream.try_clone()?);
        let (queue, frames) = mpsc::channel();
        let client = Arc::new(Client {
            stream,
            queue,
            queued: AtomicUsize::new(0),
        });
        let channel = self.enter(&client);
        let out = client.clone();
        thread::spawn(move || out.write(writer, &frames));
        while let Ok(Some(Frame { payload, .. })) = Frame::read(&mut reader) {
            if self.to_guest(channel, payload).is_err() {
                break;
            }
        }
        // The agent knows by itself that a command has ended.
        let _ = self.to_guest(channel, Payload::Note(Note::Gone));
        client.hang_up();
        self.leave(channel);
        Ok(())
    }

    fn enter(&self, client: &Arc<Client>) -> u32 {
        let mut clients = lock(&self.clients);
        let channel = clients.next;
        clients.next = channel.wrapping_add(1);
        clients.open.insert(channel, client.clone());
        let count = clients.open.len();
        (self.tell)(Change::Clients(count));
        channel
    }

    fn leave(&self, channel: u32) {
        let mut clients = lock(&self.clients);
        clients.open.remove(&channel);
        clients.idle_since = Instant::now();
        let count = clients.open.len();
        (self.tell)(Change::Clients(count));
    }

    fn to_guest(&self, channel: u32, payload: Payload) -> io::Result<()> {
        Frame { channel, payload }.write(&mut *lock(&self.guest))
    }
}

impl Client {
    fn pass(&self, frame: Frame) {
        let cost = frame.cost();
        if self.queued.fetch_add(cost, Ordering::SeqCst) + cost > QUEUE_MAX {
            self.hang_up();
        } else {
            let _ = self.queue.send(frame);
        }
    }

    fn write(&self, mut to: UnixStream, frames: &Receiver<Frame>) {
        // Ends with the write that fails: the client's own reader has hung up then.
        while let Ok(frame) = frames.recv() {
            self.queued.fetch_sub(frame.cost(), Ordering::SeqCst);
            let last = matches!(frame.payload, Payload::Note(Note::Exited(_)));
            if frame.write(&mut to).is_err() || last {
                return;
            }
        }
    }

    fn hang_up(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        // Wakes the thread that writes.
        let _ = self.queue.send(Frame {
            channel: 0,
            payload: Payload::Note(Note::Gone),
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::mpsc::channel;

    use fifo_lab_agent::frame::CHUNK;
    use fifo_lab_agent::frame::Stream;

    use super::*;

    struct Rig {
        _dir: tempfile::TempDir,
        path: std::path::PathBuf,
        guest: UnixStream,
        hub: Arc<Hub>,
        changes: Receiver<Change>,
    }

    fn rig() -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hub");
        let (guest, port) = UnixStream::pair().unwrap();
        let (sender, changes) = channel();
        let listener = UnixListener::bind(&path).unwrap();
        let tell = move |change| drop(sender.send(change));
        let hub = Hub::start(port, listener, Box::new(tell)).unwrap();
        Rig {
            _dir: dir,
            path,
            guest,
            hub,
            changes,
        }
    }

    fn data(channel: u32, byte: u8) -> Frame {
        Frame {
            channel,
            payload: Payload::Data(Stream::Stdout, vec![byte; CHUNK]),
        }
    }

    #[test]
    fn each_client_has_a_channel_of_its_own_and_the_guest_hears_when_it_goes() {
        let mut rig = rig();
        let mut clients = [0, 1].map(|count| {
            let client = UnixStream::connect(&rig.path).unwrap();
            assert!(matches!(rig.changes.recv().unwrap(), Change::Clients(n) if n == count + 1));
            client
        });
        assert!(rig.hub.idle_since().is_none());
        for (client, byte) in clients.iter_mut().zip(1..) {
            data(7, byte).write(client).unwrap();
            let frame = Frame::read(&mut rig.guest).unwrap().unwrap();
            assert_eq!(frame.payload, data(0, byte).payload);
            data(frame.channel, byte + 10)
                .write(&mut rig.guest)
                .unwrap();
            let back = Frame::read(client).unwrap().unwrap();
            assert_eq!(back.payload, data(0, byte + 10).payload);
        }
        let [first, second] = clients;
        drop(first);
        let gone = Frame::read(&mut rig.guest).unwrap().unwrap();
        assert_eq!(gone.payload, Payload::Note(Note::Gone));
        assert!(matches!(rig.changes.recv().unwrap(), Change::Clients(1)));
        drop(second);
        assert!(matches!(rig.changes.recv().unwrap(), Change::Clients(0)));
        assert!(rig.hub.idle_since().is_some());
    }

    #[test]
    fn a_client_that_does_not_read_holds_up_no_other_and_a_guest_that_floods_it_loses_it() {
        let mut rig = rig();
        let mut channels = Vec::new();
        let mut clients = Vec::new();
        for _ in 0..2 {
            let mut client = UnixStream::connect(&rig.path).unwrap();
            data(0, 0).write(&mut client).unwrap();
            channels.push(Frame::read(&mut rig.guest).unwrap().unwrap().channel);
            clients.push(client);
        }
        for _ in 0..=QUEUE_MAX / CHUNK + 10 {
            data(channels[0], 1).write(&mut rig.guest).unwrap();
        }
        data(channels[1], 2).write(&mut rig.guest).unwrap();
        let other = Frame::read(&mut clients[1]).unwrap().unwrap();
        assert_eq!(other.payload, data(0, 2).payload);
        let gone = Frame::read(&mut rig.guest).unwrap().unwrap();
        let expected = (channels[0], Payload::Note(Note::Gone));
        assert_eq!((gone.channel, gone.payload), expected);
    }

    #[test]
    fn nonsense_from_the_guest_is_told_and_ends_all_clients() {
        let mut rig = rig();
        let mut client = UnixStream::connect(&rig.path).unwrap();
        assert!(matches!(rig.changes.recv().unwrap(), Change::Clients(1)));
        rig.guest.write_all(&[0xff; 9]).unwrap();
        assert!(matches!(rig.changes.recv().unwrap(), Change::Nonsense(_)));
        assert_eq!(Frame::read(&mut client).unwrap(), None);
    }
}
