// SPDX-License-Identifier: GPL-2.0-only

//! Stand-in for tracepoints: all are off.

/// As in `kapi`.
macro_rules! tracepoints {
    (impl $of:ident $fields:tt {$(
        $(#[$attr:meta])*
        fn $name:ident($($arg:ident: $type:ty),*) = $event:ident;
    )*}) => {
        impl $of {$(
            $(#[$attr])*
            pub(crate) fn $name(&self, $(_: $type),*) {}
        )*}
    };
}

pub(crate) use tracepoints;
