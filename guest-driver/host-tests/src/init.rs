// SPDX-License-Identifier: GPL-2.0-only

//! Stand-in for in-place initialisation: values are made and moved, as nothing here is pinned.

use crate::alloc::{Flags, KBox};
use crate::prelude::{Error, Result};
use std::convert::Infallible;

/// Something that makes a `T`.
pub trait PinInit<T, E = Infallible> {
    /// Makes it.
    fn make(self) -> Result<T, E>;
}

/// A closure that makes a `T`.
pub struct FromFn<F>(F);

impl<T, E, F: FnOnce() -> Result<T, E>> PinInit<T, E> for FromFn<F> {
    fn make(self) -> Result<T, E> {
        (self.0)()
    }
}

/// Makes an initialiser of a closure.
pub fn from_fn<T, E, F: FnOnce() -> Result<T, E>>(make: F) -> FromFn<F> {
    FromFn(make)
}

/// Smart pointers that are made with their content.
pub trait InPlaceInit<T>: Sized {
    /// The pointer, pinned.
    type PinnedSelf;

    /// As in the kernel crate.
    fn pin_init<E>(init: impl PinInit<T, E>, flags: Flags) -> Result<Self::PinnedSelf>
    where
        Error: From<E>;
}

impl<T> InPlaceInit<T> for KBox<T> {
    type PinnedSelf = std::pin::Pin<Self>;

    fn pin_init<E>(init: impl PinInit<T, E>, flags: Flags) -> Result<Self::PinnedSelf>
    where
        Error: From<E>,
    {
        let value = KBox::new(init.make()?, flags)?;
        // SAFETY: The box is not given out but in this pin.
        Ok(unsafe { std::pin::Pin::new_unchecked(value) })
    }
}

/// As in the kernel crate.
#[macro_export]
macro_rules! try_pin_init {
    (Self { $($fields:tt)* }) => {
        $crate::init::from_fn::<Self, $crate::prelude::Error, _>(move || {
            Ok($crate::init_fields!([] $($fields)*))
        })
    };
}

/// As in the kernel crate.
#[macro_export]
macro_rules! pin_init {
    (Self { $($fields:tt)* }) => {
        $crate::init::from_fn::<Self, std::convert::Infallible, _>(move || {
            Ok($crate::init_fields!([] $($fields)*))
        })
    };
}

/// The fields of an initialiser, one by one.
#[macro_export]
macro_rules! init_fields {
    ([$($done:tt)*]) => { Self { $($done)* } };
    ([$($done:tt)*] $(#[$meta:meta])* $field:ident <- $init:expr $(, $($rest:tt)*)?) => {
        $crate::init_fields!(
            [$($done)* $(#[$meta])* $field: $crate::init::PinInit::<_, _>::make($init)?,] $($($rest)*)?
        )
    };
    ([$($done:tt)*] $(#[$meta:meta])* $field:ident : $value:expr $(, $($rest:tt)*)?) => {
        $crate::init_fields!([$($done)* $(#[$meta])* $field: $value,] $($($rest)*)?)
    };
    ([$($done:tt)*] $(#[$meta:meta])* $field:ident $(, $($rest:tt)*)?) => {
        $crate::init_fields!([$($done)* $(#[$meta])* $field,] $($($rest)*)?)
    };
}

/// As in the kernel crate.
#[macro_export]
macro_rules! dev_err {
    ($device:expr, $($arg:tt)*) => {{
        let _ = &$device;
        $crate::world::log(format!($($arg)*))
    }};
}

/// As in the kernel crate.
#[macro_export]
macro_rules! pr_err {
    ($($arg:tt)*) => { $crate::world::log(format!($($arg)*)) };
}
