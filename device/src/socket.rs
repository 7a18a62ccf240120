// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The listening socket: made at a path, or inherited.
//!
//! A path may hold what an earlier daemon left, what a living one uses, or something that is none
//! of ours; only the first is replaced. This file must not know what is spoken on the socket.

mod access;
mod lock;

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::FcntlArg;
use nix::fcntl::FdFlag;
use nix::fcntl::fcntl;
use nix::sys::socket;
use nix::sys::socket::AddressFamily;
use nix::sys::socket::Backlog;
use nix::sys::socket::SockFlag;
use nix::sys::socket::SockType;
use nix::sys::socket::UnixAddr;
use nix::sys::socket::sockopt;
use nix::sys::stat::Mode;
use nix::sys::stat::fchmod;

pub use self::access::Access;
pub use self::lock::PathLock;

/// Longest path that fits into a socket address, its final NUL not counted.
const MAX_PATH: usize = 107;

/// Why there is no listening socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The address would be cut off.
    #[error(
        "socket path of {len} bytes is too long, at most {MAX_PATH} fit: use a shorter path than {path}"
    )]
    TooLong {
        /// As given.
        path: PathBuf,
        /// Its length.
        len: usize,
    },
    /// The path ends in no name.
    #[error("socket path '{0}' names no file: give the path of the socket to create")]
    NoName(PathBuf),
    /// Nowhere to create it.
    #[error("directory {0} does not exist: create it, or use another path")]
    NoDirectory(PathBuf),
    /// A daemon listens there.
    #[error("socket {0} is in use by a running process: end that, or use another path")]
    InUse(PathBuf),
    /// Something else is there.
    #[error("{0} exists and is not a socket: it is left alone, use another path")]
    NotASocket(PathBuf),
    /// No permission, no space, read-only …
    #[error("cannot create socket {path}: {source}; use a path in a directory you can write to")]
    Create {
        /// As given.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its file cannot be given to those who may connect.
    #[error("cannot give socket {path} its group and mode: {source}")]
    Access {
        /// As given.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no such descriptor, or it is no socket.
    #[error(
        "file descriptor {0} is not an open socket: pass the number of an inherited UNIX socket"
    )]
    NotOpen(RawFd),
    /// It is a socket of another family or type.
    #[error("file descriptor {0} is not a UNIX stream socket: pass one that listens")]
    WrongFamily(RawFd),
    /// Standard input, output and error have their use.
    #[error("file descriptor {0} is a standard stream: pass the socket as 3 or above")]
    StandardStream(RawFd),
    /// It is no end that connections come in at.
    #[error("file descriptor {0} is not listening: call listen() before passing it on")]
    NotListening(RawFd),
    /// The kernel refuses.
    #[error("cannot use file descriptor {fd}: {source}")]
    Inherited {
        /// As given.
        fd: RawFd,
        /// Why.
        source: io::Error,
    },
}

/// A listening socket; its file, if it made one, is removed with it.
#[derive(Debug)]
pub struct Listening {
    listener: UnixListener,
    file: Option<SocketFile>,
}

impl Listening {
    /// Creates a socket at `path`, for its owner only.
    ///
    /// # Errors
    ///
    /// What is in the way.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        Self::bind_for(path, &Access::OWNER)
    }

    /// Creates a socket at `path`, for those of `access`.
    ///
    /// # Errors
    ///
    /// What is in the way.
    pub fn bind_for(path: &Path, access: &Access) -> Result<Self, SocketError> {
        check_path(path)?;
        let denied = |source: io::Error| SocketError::Access {
            path: path.to_owned(),
            source,
        };
        let gid = access.gid().map_err(denied)?;
        let create = |source: io::Error| SocketError::Create {
            path: path.to_owned(),
            source,
        };
        let lock = PathLock::take(path)
            .map_err(create)?
            .ok_or_else(|| SocketError::InUse(path.to_owned()))?;
        clear_path(path)?;
        let address = UnixAddr::new(path).map_err(|errno| create(errno.into()))?;
        let fd = stream_socket(SockFlag::SOCK_CLOEXEC).map_err(|errno| create(errno.into()))?;
        // The file gets the mode of the socket, at once: no moment at which others may connect, and no
        // path that could lead elsewhere by then.
        fchmod(&fd, Mode::S_IRUSR | Mode::S_IWUSR).map_err(|errno| create(errno.into()))?;
        socket::bind(fd.as_raw_fd(), &address).map_err(|errno| match errno {
            Errno::EADDRINUSE => SocketError::InUse(path.to_owned()),
            errno => create(errno.into()),
        })?;
        let file = SocketFile::new(path, lock).map_err(create)?;
        access.grant(path, file.id, gid).map_err(denied)?;
        let backlog = Backlog::new(16).map_err(|errno| create(errno.into()))?;
        socket::listen(&fd, backlog).map_err(|errno| create(errno.into()))?;
        Ok(Self {
            listener: UnixListener::from(fd),
            file: Some(file),
        })
    }

    /// Takes over the listening socket `fd`, which this process inherited. Call it before
    /// anything is opened, and once: afterwards the number may mean something else.
    ///
    /// # Errors
    ///
    /// When it is none.
    pub fn inherit(fd: RawFd) -> Result<Self, SocketError> {
        if (0..3).contains(&fd) {
            return Err(SocketError::StandardStream(fd));
        }
        let is_socket = fs::metadata(format!("/proc/self/fd/{fd}"))
            .is_ok_and(|metadata| metadata.file_type().is_socket());
        if !is_socket {
            return Err(SocketError::NotOpen(fd));
        }
        let failed = |errno: Errno| SocketError::Inherited {
            fd,
            source: errno.into(),
        };
        let owned = own(fd);
        fcntl(&owned, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(failed)?;
        if socket::getsockname::<UnixAddr>(fd).is_err()
            || socket::getsockopt(&owned, sockopt::SockType).map_err(failed)? != SockType::Stream
        {
            return Err(SocketError::WrongFamily(fd));
        }
        if !socket::getsockopt(&owned, sockopt::AcceptConn).map_err(failed)? {
            return Err(SocketError::NotListening(fd));
        }
        Ok(Self {
            listener: UnixListener::from(owned),
            file: None,
        })
    }

    /// The socket, and the file that must be kept as long as it is wanted.
    pub fn into_parts(self) -> (UnixListener, Option<SocketFile>) {
        (self.listener, self.file)
    }
}

/// Takes ownership of an inherited descriptor.
#[expect(
    unsafe_code,
    reason = "a number on the command line is all there is of it"
)]
fn own(fd: RawFd) -> OwnedFd {
    // SAFETY:
    // - `fd` is open: `/proc/self/fd` has it.
    // - It was inherited, so nothing in this process owns it; it is taken once, before anything
    //   else is opened.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A file of ours, a socket or a link, removed on drop unless something else has taken its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    id: (u64, u64),
    /// Dropped after the file is removed.
    _lock: PathLock,
}

impl SocketFile {
    /// The file that was just made at `path`, which is locked.
    ///
    /// # Errors
    ///
    /// When it is gone already.
    pub fn new(path: &Path, lock: PathLock) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            id: file_id(path)?,
            _lock: lock,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if file_id(&self.path).is_ok_and(|id| id == self.id)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove it");
        }
    }
}

fn file_id(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Checks that `path` can be the address of a socket.
///
/// # Errors
///
/// When it is too long, or names no file.
pub fn check_address(path: &Path) -> Result<(), SocketError> {
    let len = path.as_os_str().as_bytes().len();
    if len > MAX_PATH {
        return Err(SocketError::TooLong {
            path: path.to_owned(),
            len,
        });
    }
    if path.file_name().is_none() {
        return Err(SocketError::NoName(path.to_owned()));
    }
    Ok(())
}

/// Connects to the socket at `path`, without waiting for whoever should accept that.
///
/// # Errors
///
/// When nobody listens there, or their backlog is full.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let stream = stream_socket(SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)?;
    socket::connect(stream.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(UnixStream::from(stream))
}

fn check_path(path: &Path) -> Result<(), SocketError> {
    check_address(path)?;
    match path.parent() {
        Some(parent) if parent != Path::new("") && !parent.is_dir() => {
            Err(SocketError::NoDirectory(parent.to_owned()))
        }
        _ => Ok(()),
    }
}

/// Removes the socket of a daemon that is no more.
fn clear_path(path: &Path) -> Result<(), SocketError> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        return Err(SocketError::NotASocket(path.to_owned()));
    }
    let create = |source: io::Error| SocketError::Create {
        path: path.to_owned(),
        source,
    };
    match touch(path) {
        Err(Errno::ECONNREFUSED) => fs::remove_file(path).map_err(create),
        Err(Errno::ENOENT) => Ok(()),
        // It lives, and is a stream; or it is one of datagrams, which may have a peer.
        Err(Errno::EPROTOTYPE | Errno::EPERM) | Ok(()) => Err(SocketError::InUse(path.to_owned())),
        Err(errno) => Err(create(errno.into())),
    }
}

/// Asks for a socket of datagrams at `path`. A stream socket that lives says that it is none
/// (`EPROTOTYPE`), one that does not refuses; and who listens there hears nothing of it, while a
/// connection would be a peer that comes and goes.
fn touch(path: &Path) -> nix::Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
    socket::connect(socket.as_raw_fd(), &UnixAddr::new(path)?)
}

fn stream_socket(flags: SockFlag) -> nix::Result<OwnedFd> {
    socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn only_the_owner_may_connect_and_the_file_goes_with_the_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listening = Listening::bind(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        drop(listening);
        assert!(!path.exists());
    }

    #[test]
    fn a_group_may_connect_if_it_is_given_the_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let own = nix::unistd::getgid();
        let access = Access {
            mode: 0o660,
            group: Some(own.to_string()),
        };
        let _listening = Listening::bind_for(&path, &access).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o660);
        assert_eq!(metadata.gid(), own.as_raw());
        let access = Access {
            group: Some("no such group".to_owned()),
            ..access
        };
        let other = dir.path().join("other");
        let error = Listening::bind_for(&other, &access).unwrap_err();
        assert!(
            error.to_string().contains("no group 'no such group'"),
            "{error}"
        );
        assert!(!other.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let _listening = Listening::bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_living_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let (living, _file) = Listening::bind(&path).unwrap().into_parts();
        let error = Listening::bind(&path).unwrap_err();
        assert!(matches!(error, SocketError::InUse(_)), "{error}");
        // It has heard nothing of that.
        living.set_nonblocking(true).unwrap();
        let heard = living.accept().unwrap_err();
        assert_eq!(heard.kind(), io::ErrorKind::WouldBlock);
        UnixStream::connect(&path).unwrap();
        let datagram = dir.path().join("d");
        let _datagram = UnixDatagram::bind(&datagram).unwrap();
        let error = Listening::bind(&datagram).unwrap_err();
        assert!(matches!(error, SocketError::InUse(_)), "{error}");
    }

    #[test]
    fn what_is_no_socket_is_not_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious");
        fs::write(&path, "data").unwrap();
        let error = Listening::bind(&path).unwrap_err();
        assert!(matches!(error, SocketError::NotASocket(_)), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"data");
    }

    #[test]
    fn a_file_that_took_the_place_of_the_socket_is_not_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listening = Listening::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "data").unwrap();
        drop(listening);
        assert_eq!(fs::read(&path).unwrap(), b"data");
    }

    #[test]
    fn paths_that_cannot_be_say_why() {
        let dir = tempfile::tempdir().unwrap();
        let longest = dir
            .path()
            .join("x".repeat(106 - dir.path().as_os_str().len()));
        Listening::bind(&longest).unwrap();
        let error = Listening::bind(&longest.with_added_extension("y")).unwrap_err();
        assert!(
            matches!(error, SocketError::TooLong { len: 109, .. }),
            "{error}"
        );
        let error = Listening::bind(&dir.path().join("no/s")).unwrap_err();
        assert!(matches!(error, SocketError::NoDirectory(_)), "{error}");
        let error = Listening::bind(Path::new("/")).unwrap_err();
        assert!(matches!(error, SocketError::NoName(_)), "{error}");
    }
}
