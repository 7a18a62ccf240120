// SPDX-License-Identifier: GPL-2.0-only

//! Stand-in for the kernel crate's prelude.

pub use crate::alloc::flags::*;
pub use crate::alloc::{AllocError, KBox, KVec};
pub use crate::init::{InPlaceInit, PinInit};
pub use crate::{dev_err, pin_init, pr_err, try_pin_init};
pub use driver_host_macros::pin_data;
pub use std::ffi::{c_int, c_uint, c_ulong, c_void, CStr};
pub use std::pin::Pin;

/// An errno.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Error(i32);

impl Error {
    /// The negative errno.
    pub fn to_errno(self) -> i32 {
        -self.0
    }
}

impl From<AllocError> for Error {
    fn from(_: AllocError) -> Self {
        ENOMEM
    }
}

impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

/// As in the kernel crate.
pub type Result<T = (), E = Error> = core::result::Result<T, E>;

macro_rules! errors {
    ($($name:ident = $errno:literal),*) => {
        $(
            #[allow(missing_docs)]
            pub const $name: Error = Error($errno);
        )*
    };
}

errors! {
    EIO = 5, EBADF = 9, EAGAIN = 11, ENOMEM = 12, EFAULT = 14, ENODEV = 19, EINVAL = 22, ENOTTY = 25, EPIPE = 32,
    ECANCELED = 125, ERESTARTSYS = 512, EIOCBQUEUED = 529
}
