// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The documentation as a site that opens without a network: `cargo lab docs`.
//!
//! ```text
//! pages.rs: files of the repository ──► chapters, with links that hold in the site
//! build.rs: chapters ──► mdBook's folder ──► HTML in the cache, beside the crates' own pages
//! kapi.rs: the driver, by kbuild's own flags ──► rustdoc's pages of kapi, in the cache, copied beside them
//! ```
//! pages.rs must not know mdBook's program nor the cache; build.rs must not know what a page says.

pub mod build;
mod kapi;
mod pages;
