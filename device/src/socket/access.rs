// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Who may connect to a socket that was made at a path.
//!
//! The file is made for its owner alone, and opened to others once it is known to be the one that
//! was made: a name that meanwhile leads elsewhere changes the mode of nothing.

use std::fs;
use std::fs::Permissions;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::fcntl::AtFlags;
use nix::fcntl::OFlag;
use nix::unistd::Gid;
use nix::unistd::Group;
use nix::unistd::fchownat;

/// Mode of a socket that is for its owner alone.
const PRIVATE: u32 = 0o600;

/// Who may connect to a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Mode of its file.
    pub mode: u32,
    /// Group of its file, by name or number; `None` for the process's.
    pub group: Option<String>,
}

impl Access {
    /// Its owner alone.
    pub const OWNER: Self = Self {
        mode: PRIVATE,
        group: None,
    };

    /// The group's number.
    ///
    /// # Errors
    ///
    /// When there is no such group.
    pub fn gid(&self) -> io::Result<Option<Gid>> {
        let Some(name) = &self.group else {
            return Ok(None);
        };
        if let Ok(number) = name.parse() {
            return Ok(Some(Gid::from_raw(number)));
        }
        match Group::from_name(name)? {
            Some(group) => Ok(Some(group.gid)),
            None => Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("there is no group '{name}'; name one of 'getent group'"),
            )),
        }
    }

    /// Gives the file `path`, which has mode 0600 and the device and inode numbers `id`, to those
    /// who may connect.
    pub(super) fn grant(&self, path: &Path, id: (u64, u64), gid: Option<Gid>) -> io::Result<()> {
        if *self == Self::OWNER {
            return Ok(());
        }
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW;
        let file = fs::File::options()
            .read(true)
            .custom_flags(flags.bits())
            .open(path)?;
        let metadata = file.metadata()?;
        if (metadata.dev(), metadata.ino()) != id {
            return Err(io::Error::other("another file has taken its place"));
        }
        if gid.is_some() {
            fchownat(&file, "", None, gid, AtFlags::AT_EMPTY_PATH)?;
        }
        // There is no call for the mode of a descriptor that was opened by O_PATH; this leads to it.
        let same = format!("/proc/self/fd/{}", file.as_raw_fd());
        fs::set_permissions(same, Permissions::from_mode(self.mode))
    }
}
