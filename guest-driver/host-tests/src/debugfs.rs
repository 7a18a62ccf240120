// SPDX-License-Identifier: GPL-2.0-only

//! Stand-in for `kernel::debugfs`: folders that nobody sees.

use crate::init::{from_fn, PinInit};
use crate::prelude::{Error, Result};
use std::ffi::{CStr, CString};

/// A folder.
#[derive(Debug)]
pub struct Dir;

/// A folder with what is shown in it.
#[derive(Debug)]
pub struct Scope<T>(#[allow(dead_code)] T);

impl Dir {
    /// As in the kernel crate.
    pub fn scope<T>(
        &self,
        data: Result<T>,
        _name: &CString,
        fill: impl FnOnce(&T, &Self),
    ) -> impl PinInit<Scope<T>, Error> {
        from_fn(move || {
            let data = data?;
            fill(&data, &Dir);
            Ok(Scope(data))
        })
    }

    /// As in the kernel crate.
    pub fn read_only_file<T>(&self, _name: &CStr, _value: &T) {}
}
