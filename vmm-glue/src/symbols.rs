// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A running kernel's symbols as a file that debuggers read: an ELF executable without contents, made from /proc/kallsyms.
//!
//! Debian's kernel image has no symbols that gdb could read, and the package that has them is 1 GB. Names and addresses are enough to set
//! breakpoints and to read a backtrace; types and lines of the kernel's own code are not in it. This file must not know where the text is from.

/// File header, the section headers' size, a symbol's size (elf(5), 64 bit).
const HEADER: usize = 64;
const SECTION: usize = 64;
const SYMBOL: usize = 24;
/// Numbers of the sections: what the kernel consists of, the table of symbols, their names, the sections' names.
const SECTIONS: [&[u8]; 5] = [b"", b".text", b".symtab", b".strtab", b".shstrtab"];
const TEXT: u16 = 1;
const STRTAB: u32 = 3;
const EXECUTABLE: u16 = 2;
/// Types of sections.
const SYMTAB_TYPE: u32 = 2;
const STRTAB_TYPE: u32 = 3;
const NOBITS_TYPE: u32 = 8;
/// A section that is in memory and executed.
const ALLOC_EXEC: u64 = 2 | 4;
/// Kinds of symbols.
const OBJECT: u8 = 1;
const FUNCTION: u8 = 2;

struct Symbol<'a> {
    address: u64,
    kind: u8,
    name: &'a str,
}

/// The file, for this machine (`e_machine` of elf(5)), and how many symbols are in it. Modules' symbols, which have a word more, are left out.
pub fn of(kallsyms: &str, machine: u16) -> (Vec<u8>, usize) {
    let symbols: Vec<Symbol<'_>> = kallsyms.lines().filter_map(symbol).collect();
    let first = symbols.iter().map(|symbol| symbol.address).min();
    let last = symbols.iter().map(|symbol| symbol.address).max();
    let (first, size) = match (first, last) {
        (Some(first), Some(last)) => (first, last - first + 1),
        _ => (0, 0),
    };
    let mut names = vec![0];
    let mut table = vec![0; SYMBOL];
    for symbol in &symbols {
        table.extend(word(names.len()));
        table.extend([symbol.kind, 0]);
        table.extend(TEXT.to_le_bytes());
        table.extend(symbol.address.to_le_bytes());
        table.extend([0; 8]);
        names.extend(symbol.name.as_bytes());
        names.push(0);
    }
    let mut section_names = Vec::new();
    let mut name_at = Vec::new();
    for name in SECTIONS {
        name_at.push(section_names.len());
        section_names.extend(name);
        section_names.push(0);
    }
    let table_at = HEADER;
    let names_at = table_at + table.len();
    let section_names_at = names_at + names.len();
    let headers_at = section_names_at + section_names.len();
    let locals = symbols.len() + 1;
    let mut file = header(machine, headers_at);
    let (table_size, names_size) = (table.len(), names.len());
    let section_names_size = section_names.len();
    file.extend(table);
    file.extend(names);
    file.extend(section_names);
    let mut names = name_at.into_iter();
    let mut section =
        |kind, flags, address, at: usize, size: u64, link: u32, info, entry: usize| {
            file.extend(word(names.next().unwrap_or_default()));
            file.extend(u32::to_le_bytes(kind));
            for long in [flags, address, at as u64, size] {
                file.extend(u64::to_le_bytes(long));
            }
            file.extend(link.to_le_bytes());
            file.extend(word(info));
            file.extend(1_u64.to_le_bytes());
            file.extend((entry as u64).to_le_bytes());
        };
    section(0, 0, 0, 0, 0, 0, 0, 0);
    section(NOBITS_TYPE, ALLOC_EXEC, first, HEADER, size, 0, 0, 0);
    section(
        SYMTAB_TYPE,
        0,
        0,
        table_at,
        table_size as u64,
        STRTAB,
        locals,
        SYMBOL,
    );
    section(STRTAB_TYPE, 0, 0, names_at, names_size as u64, 0, 0, 0);
    section(
        STRTAB_TYPE,
        0,
        0,
        section_names_at,
        section_names_size as u64,
        0,
        0,
        0,
    );
    (file, symbols.len())
}

fn header(machine: u16, sections_at: usize) -> Vec<u8> {
    let mut header = b"\x7fELF\x02\x01\x01".to_vec();
    header.resize(16, 0);
    for short in [EXECUTABLE, machine] {
        header.extend(short.to_le_bytes());
    }
    header.extend(1_u32.to_le_bytes());
    for long in [0, 0, sections_at as u64] {
        header.extend(long.to_le_bytes());
    }
    header.extend([0; 4]);
    let count = SECTIONS.len();
    for short in [HEADER, 0, 0, SECTION, count, count - 1] {
        header.extend(word(short).into_iter().take(2));
    }
    header
}

/// Sizes of a file that is read from a guest of a few million symbols at most fit.
fn word(value: usize) -> [u8; 4] {
    u32::try_from(value).unwrap_or_default().to_le_bytes()
}

/// A line is an address, a letter for the kind, a name.
fn symbol(line: &str) -> Option<Symbol<'_>> {
    let mut words = line.split_whitespace();
    let (address, kind, name) = (words.next()?, words.next()?, words.next()?);
    let kind = match kind {
        "t" | "T" | "w" | "W" => FUNCTION,
        "d" | "D" | "b" | "B" | "r" | "R" | "v" | "V" => OBJECT,
        _ => return None,
    };
    let address = u64::from_str_radix(address, 16).ok()?;
    // Per-CPU offsets are small, and hidden addresses are 0.
    let in_kernel = address >= 1 << 63;
    (in_kernel && words.next().is_none()).then_some(Symbol {
        address,
        kind,
        name,
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const TEXT: &str = "0000000000000000 A fixed_percpu_data\nffffffff81000000 T _text\nffffffff81000040 t do_one\n\
                        ffffffff82000000 D jiffies\nffffffffc0000000 t fifo_write\t[globalfifo]\n";

    #[test]
    fn only_the_kernels_own_functions_and_objects_are_taken() {
        let (file, count) = of(TEXT, 62);
        assert_eq!(count, 3);
        assert!(!String::from_utf8_lossy(&file).contains("fifo_write"));
        assert_eq!(of("", 62).1, 0);
    }

    #[test]
    fn other_programs_read_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kernel");
        std::fs::write(&path, of(TEXT, 62).0).unwrap();
        let nm = Command::new("nm").arg(&path).output().unwrap();
        let said = String::from_utf8_lossy(&nm.stdout).into_owned();
        assert!(
            nm.status.success(),
            "{}",
            String::from_utf8_lossy(&nm.stderr)
        );
        for line in ["ffffffff81000040 t do_one", "ffffffff81000000 t _text"] {
            assert!(said.contains(line), "{said}");
        }
    }
}
