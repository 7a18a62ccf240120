// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The image that QEMU boots: the kernel itself out of its compressed file, if QEMU can start that (PVH). An emulated CPU needs longer to
//! decompress a kernel than to start it.
//!
//! It must not know where the kernel comes from.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;

use super::kernel::Kernel;
use super::shop::Shop;
use crate::cache::Entry;
use crate::key::Key;
use crate::key::KeyBuilder;

/// Its name in the cache.
pub const STAGE: &str = "boot-image";
/// The image.
const IMAGE: &str = "image";
/// Beside it the kernel's own file: a guest's kexec takes no other, nor does one come back from S3 that was not entered by it.
const ORIGINAL: &str = "vmlinuz";
/// Changed when it is made differently.
const FORM: &str = "2";

/// What a compressed kernel begins with if it is compressed by zstd.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Bytes after the compressed kernel that tell its length.
const LENGTH: usize = 4;
/// Type of the ELF note with the address where a hypervisor enters the kernel (XEN_ELFNOTE_PHYS32_ENTRY).
const ENTRY_NOTE: u32 = 18;
/// Type of a segment of notes.
const PT_NOTE: u32 = 4;

/// What it is made from, for a kernel with this key.
pub fn key(kernel: &Key) -> Key {
    KeyBuilder::new(STAGE)
        .field("kernel", &kernel.id)
        .field("form", FORM)
        .finish()
}

/// What is booted of an entry, for a machine whose root is in RAM or not: only there, a suspend succeeds.
pub fn path(entry: &Path, root_in_ram: bool) -> PathBuf {
    entry.join(if root_in_ram { ORIGINAL } else { IMAGE })
}

/// The image of this kernel.
pub fn obtain(shop: &Shop, kernel: &Kernel, kernel_key: &Key) -> Result<Entry> {
    let what = "unpacking the kernel's image";
    shop.obtain(STAGE, &key(kernel_key), what, |bench| {
        let from = kernel.image();
        let file = fs::read(&from).with_context(|| format!("cannot read {}", from.display()))?;
        let (to, original) = (bench.dir.join(IMAGE), bench.dir.join(ORIGINAL));
        fs::copy(&from, &original)
            .with_context(|| format!("cannot make {}", original.display()))?;
        // One that QEMU cannot enter is booted as it is.
        fs::write(&to, uncompressed(&file).as_deref().unwrap_or(&file))
            .with_context(|| format!("cannot write {}", to.display()))
    })
}

/// The kernel in a bzImage (Documentation/arch/x86/boot.rst), if it is one that can be entered at its own note's address.
fn uncompressed(file: &[u8]) -> Option<Vec<u8>> {
    let setup = usize::from(*file.get(0x1f1)?);
    let start = (setup + 1) * 512 + number(file, 0x248)?;
    let payload = file.get(start..)?.get(..number(file, 0x24c)?)?;
    let compressed = payload.get(..payload.len().checked_sub(LENGTH)?)?;
    if file.get(0x202..0x206)? != b"HdrS" || !compressed.starts_with(&ZSTD) {
        return None;
    }
    let mut kernel = Vec::new();
    ruzstd::decoding::StreamingDecoder::new(compressed)
        .ok()?
        .read_to_end(&mut kernel)
        .ok()?;
    has_entry_note(&kernel)?.then_some(kernel)
}

/// Whether QEMU can start this ELF file.
pub fn can_be_entered(elf: &[u8]) -> bool {
    has_entry_note(elf).unwrap_or(false)
}

/// Whether a 64-bit ELF file has Xen's note of its entry.
fn has_entry_note(elf: &[u8]) -> Option<bool> {
    if elf.get(..5)? != b"\x7fELF\x02" {
        return None;
    }
    let (table, size) = (long(elf, 0x20)?, short(elf, 0x36)?);
    for index in 0..short(elf, 0x38)? {
        let header = elf.get(table + index * size..)?;
        if number(header, 0)? != usize::try_from(PT_NOTE).ok()? {
            continue;
        }
        let mut notes = elf.get(long(header, 8)?..)?.get(..long(header, 0x20)?)?;
        while notes.len() >= 12 {
            let (name, description) = (number(notes, 0)?, number(notes, 4)?);
            let kind = notes.get(8..12)?;
            if kind == ENTRY_NOTE.to_le_bytes() && notes.get(12..12 + name)? == b"Xen\0" {
                return Some(true);
            }
            let next = 12 + name.next_multiple_of(4) + description.next_multiple_of(4);
            notes = notes.get(next..).unwrap_or_default();
        }
    }
    Some(false)
}

fn short(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(usize::from(u16::from_le_bytes(*bytes)))
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    usize::try_from(u32::from_le_bytes(*bytes)).ok()
}

fn long(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    usize::try_from(u64::from_le_bytes(*bytes)).ok()
}

#[cfg(test)]
mod tests {
    use ruzstd::encoding::CompressionLevel;

    use super::*;

    /// An ELF file with one segment of notes.
    fn elf(note: u32) -> Vec<u8> {
        let mut elf = b"\x7fELF\x02".to_vec();
        elf.resize(64 + 56, 0);
        elf[0x20] = 64;
        elf[0x36] = 56;
        elf[0x38] = 1;
        elf[64] = 4;
        elf[64 + 8] = 120;
        elf[64 + 0x20] = 40;
        for (kind, name) in [(1, b"GNU\0"), (note, b"Xen\0")] {
            elf.extend([4_u32, 2, kind].iter().flat_map(|word| word.to_le_bytes()));
            elf.extend(name);
            elf.extend([7, 7, 0, 0]);
        }
        elf
    }

    fn bzimage(kernel: &[u8]) -> Vec<u8> {
        let mut compressed = ruzstd::encoding::compress_to_vec(kernel, CompressionLevel::Fastest);
        compressed.extend([0; LENGTH]);
        let mut file = vec![0; 1024];
        file[0x1f1] = 1;
        file[0x202..0x206].copy_from_slice(b"HdrS");
        file[0x248] = 8;
        let length = u32::try_from(compressed.len()).unwrap();
        file[0x24c..0x250].copy_from_slice(&length.to_le_bytes());
        file.extend([0; 8]);
        file.extend(compressed);
        file
    }

    #[test]
    fn a_kernel_is_taken_out_of_its_file_if_it_can_be_entered() {
        let kernel = elf(ENTRY_NOTE);
        assert_eq!(uncompressed(&bzimage(&kernel)), Some(kernel));
        assert_eq!(uncompressed(&bzimage(&elf(17))), None);
        assert_eq!(uncompressed(&bzimage(b"no ELF file")), None);
        assert_eq!(uncompressed(b"no kernel"), None);
        let mut other = bzimage(&elf(ENTRY_NOTE));
        other[1024 + 8] = 0xfd;
        assert_eq!(uncompressed(&other), None);
    }
}
