// SPDX-License-Identifier: GPL-2.0-only

//! Tracepoints of a device, which the module defines in C by `TRACE_EVENT`.
//!
//! A tracepoint that is off costs an instruction that does nothing.
//!
//! C header: [`include/linux/tracepoint.h`](srctree/include/linux/tracepoint.h).

/// Gives a type with a field `device` functions that hit tracepoints. The first argument of these
/// is the device, the next are other fields of the type, in parentheses, and the last are those of
/// the function. All but the first are integers: whatever these are, a tracepoint only records
/// them.
///
/// ```ignore
/// tracepoints! {
///     impl Port(number) {
///         /// What it records.
///         fn opened(mode: u32) = mydriver_opened;
///     }
/// }
/// ```
macro_rules! tracepoints {
    (impl $of:ident $fields:tt {$(
        $(#[$attr:meta])*
        fn $name:ident $arguments:tt = $event:ident;
    )*}) => {
        impl $of {$(
            $crate::kapi::tracepoint::tracepoints! {
                @one $fields $(#[$attr])* $name $arguments $event
            }
        )*}
    };
    (@one ($($field:ident),*) $(#[$attr:meta])* $name:ident ($($arg:ident: $type:ty),*)
     $event:ident) => {
        $(#[$attr])*
        #[inline(always)]
        pub(crate) fn $name(&self, $($arg: $type),*) {
            ::kernel::macros::paste! {
                // SAFETY: It is the static key of a tracepoint, defined in C.
                let is_on = unsafe {
                    ::kernel::jump_label::static_branch_unlikely!(
                        $crate::kapi::bindings::[<__tracepoint_ $event>],
                        $crate::kapi::bindings::tracepoint,
                        key
                    )
                };
                if is_on {
                    let device: &::kernel::device::Device = &self.device;
                    // SAFETY: The device is valid for the time of the call, and its type a
                    // transparent wrapper of C's.
                    unsafe {
                        $crate::kapi::bindings::[<rust_do_trace_ $event>](
                            ::core::ptr::from_ref(device).cast(),
                            $(self.$field,)*
                            $($arg),*
                        )
                    };
                }
            }
        }
    };
}

pub(crate) use tracepoints;
