// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Paths inside the option strings of others: one function for each grammar, and nobody else puts such a string together.
//!
//! This file must not know what the options are for.

use std::ffi::OsStr;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

/// An option of QEMU's that ends in a path: a comma in it is doubled.
pub fn qemu(option: &str, path: &Path) -> OsString {
    OsString::from_vec(escaped(option.as_bytes(), path, |byte| {
        (byte == b',').then_some(b',')
    }))
}

/// A path in a FIFO's SPEC: a comma in it is doubled there, too.
pub fn fifo_spec(path: &Path) -> OsString {
    qemu("", path)
}

/// A directory in overlayfs' options: backslash, comma and colon get a backslash.
pub fn overlay(option: &[u8], path: &Path) -> Vec<u8> {
    escaped(option, path, |byte| {
        matches!(byte, b'\\' | b',' | b':').then_some(b'\\')
    })
}

fn escaped(option: &[u8], path: &Path, before: impl Fn(u8) -> Option<u8>) -> Vec<u8> {
    let mut bytes = option.to_vec();
    for byte in path.as_os_str().as_bytes() {
        bytes.extend(before(*byte));
        bytes.push(*byte);
    }
    bytes
}

/// A character of a path that ld.so's `--library-path` takes for something else. It has no way to escape one.
pub fn taken_by_ld_so(path: &OsStr) -> Option<char> {
    [':', ';', '$']
        .into_iter()
        .find(|taken| path.as_bytes().contains(&(*taken as u8)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_does_not_end_an_option_of_qemu() {
        let path = Path::new("/tmp/a,b c:d");
        assert_eq!(
            qemu("socket,id=x,path=", path),
            "socket,id=x,path=/tmp/a,,b c:d"
        );
        assert_eq!(fifo_spec(path), "/tmp/a,,b c:d");
    }

    #[test]
    fn a_path_that_is_not_utf8_stays_what_it_is() {
        let path = Path::new(OsStr::from_bytes(b"/tmp/\xff,"));
        assert_eq!(qemu("path=", path).as_bytes(), b"path=/tmp/\xff,,");
    }

    #[test]
    fn colons_commas_and_backslashes_do_not_end_a_layer() {
        let path = Path::new(r"/a:b,c\d e");
        assert_eq!(overlay(b"lowerdir=", path), br"lowerdir=/a\:b\,c\\d e");
    }

    #[test]
    fn what_ld_so_would_split_or_expand_is_found() {
        assert_eq!(taken_by_ld_so(OsStr::new("/home/a,b c")), None);
        for (path, taken) in [("/a:b", ':'), ("/a;b", ';'), ("/$ORIGIN", '$')] {
            assert_eq!(taken_by_ld_so(OsStr::new(path)), Some(taken));
        }
    }
}
