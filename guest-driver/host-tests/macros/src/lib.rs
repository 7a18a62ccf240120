// SPDX-License-Identifier: GPL-2.0-only

//! Attribute macros of the kernel crate, for sources that are compiled on the host: nothing there is ever moved
//! by C code, so pinning is left out.

use proc_macro::{TokenStream, TokenTree};

/// Leaves a structure as it is, without the `#[pin]` of its fields.
#[proc_macro_attribute]
pub fn pin_data(_options: TokenStream, item: TokenStream) -> TokenStream {
    without_pin(item)
}

fn without_pin(tokens: TokenStream) -> TokenStream {
    let mut out = Vec::<TokenTree>::new();
    for token in tokens {
        match token {
            TokenTree::Group(group) => {
                let is_pin = group.stream().to_string() == "pin";
                let after_hash =
                    matches!(out.last(), Some(TokenTree::Punct(punct)) if punct.as_char() == '#');
                if is_pin && after_hash {
                    out.pop();
                    continue;
                }
                let mut inner =
                    proc_macro::Group::new(group.delimiter(), without_pin(group.stream()));
                inner.set_span(group.span());
                out.push(inner.into());
            }
            other => out.push(other),
        }
    }
    out.into_iter().collect()
}
