//! What code a process has, and where.

use std::fs::File;
use std::ops::Range;

use framehop::{ExplicitModuleSectionInfo, Module};
use object::elf::PF_X;
use object::read::elf::{ElfFile64, ProgramHeader as _};
use object::{LittleEndian, Object as _, ObjectSection as _, ObjectSegment as _, ReadCache, ReadRef};

/// The kernel's own code in every process.
const VDSO: &str = "[vdso]";

/// A piece of a file that a process can execute, as the kernel tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    pub(super) memory: Range<u64>,
    /// Place of its first byte in the file.
    pub(super) offset: u64,
    pub(super) file: String,
    /// By which pprof knows the file again, in hexadecimal digits; empty if it has none.
    pub(super) build_id: String,
}

/// What is executable and has a name, from `/proc/PID/maps`, with `program` first. Lines that are none are passed over.
pub(super) fn mappings(maps: &str, program: &str) -> Vec<Mapping> {
    let mut found: Vec<Mapping> = maps.lines().filter_map(mapping).collect();
    found.sort_by_key(|mapping| (mapping.file != program, mapping.memory.start));
    found
}

fn mapping(line: &str) -> Option<Mapping> {
    let mut parts = line.splitn(6, ' ');
    let (memory, rights, offset) = (parts.next()?, parts.next()?, parts.next()?);
    let file = parts.nth(2)?.trim_start();
    let (start, end) = memory.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    let is_known = file.starts_with('/') || file == VDSO;
    (rights.contains('x') && is_known).then_some(())?;
    Some(Mapping {
        memory: number(start)?..number(end)?,
        offset: number(offset)?,
        file: file.to_owned(),
        build_id: String::new(),
    })
}

/// How stacks through this code are walked, and its build id. `memory` reads the process's memory. Without it, as where the
/// file is no ELF file of 64 bits, stacks through it are walked by their frame pointers.
pub(super) fn load(
    mapping: &mut Mapping,
    open: impl FnOnce(&str) -> std::io::Result<File>,
    memory: impl FnOnce(Range<u64>) -> Option<Vec<u8>>,
) -> Option<Module<Vec<u8>>> {
    if mapping.file == VDSO {
        let bytes = memory(mapping.memory.clone())?;
        return module(mapping, bytes.as_slice());
    }
    let file = ReadCache::new(open(&mapping.file).ok()?);
    module(mapping, &file)
}

fn module<'a>(mapping: &mut Mapping, bytes: impl ReadRef<'a>) -> Option<Module<Vec<u8>>> {
    let file = ElfFile64::<LittleEndian, _>::parse(bytes).ok()?;
    if let Ok(Some(id)) = file.build_id() {
        mapping.build_id = id.iter().map(|byte| format!("{byte:02x}")).collect();
    }
    // Which of its addresses is at the beginning of what is mapped. Data may share its first page.
    let stated = file.segments().find_map(|segment| {
        let is_code = segment.elf_program_header().p_flags(LittleEndian) & PF_X != 0;
        let (offset, length) = segment.file_range();
        let here =
            offset <= mapping.offset.checked_add(PAGE)? && mapping.offset < offset.checked_add(length)?;
        (is_code && here).then(|| segment.address().wrapping_sub(offset).wrapping_add(mapping.offset))
    })?;
    let base = mapping.memory.start.wrapping_sub(stated);
    let range = |name: &str| {
        let section = file.section_by_name(name)?;
        Some(section.address()..section.address().checked_add(section.size())?)
    };
    let data = |name: &str| Some(file.section_by_name(name)?.data().ok()?.to_vec());
    let sections = ExplicitModuleSectionInfo {
        base_svma: 0,
        text_svma: range(".text"),
        got_svma: range(".got"),
        eh_frame_svma: range(".eh_frame"),
        eh_frame: data(".eh_frame"),
        eh_frame_hdr_svma: range(".eh_frame_hdr"),
        eh_frame_hdr: data(".eh_frame_hdr"),
        ..Default::default()
    };
    Some(Module::new(mapping.file.clone(), mapping.memory.clone(), base, sections))
}

/// Segments begin anywhere in a page, mappings at its beginning.
const PAGE: u64 = 0xffff;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_told_from_data_and_the_program_stands_first() {
        let maps = "\
7f00-7f80 r-xp 00026000 08:01 42                         /usr/lib/libc.so.6
5500-5520 r--p 00000000 08:01 41                         /opt/a program
5520-5580 r-xp 00020000 08:01 41                         /opt/a program
7fa0-7fb0 rw-p 00000000 00:00 0                          [stack]
7fc0-7fd0 r-xp 00000000 00:00 0                          [vdso]
8000-8010 r-xp 00000000 00:00 0 
8020-80x0 r-xp 00000000 00:00 0                          /not/a/number
nonsense";
        let found = mappings(maps, "/opt/a program");
        let files: Vec<_> = found.iter().map(|mapping| mapping.file.as_str()).collect();
        assert_eq!(files, ["/opt/a program", "/usr/lib/libc.so.6", "[vdso]"]);
        assert_eq!((found[0].memory.clone(), found[0].offset), (0x5520..0x5580, 0x20000));
    }

    #[test]
    fn what_is_no_program_is_left_to_frame_pointers() {
        let mut mapping = mapping("5520-5580 r-xp 0 08:01 41 /x").unwrap();
        let text = tempfile::tempfile().unwrap();
        assert!(load(&mut mapping, |_| Ok(text), |_| None).is_none());
        assert!(load(&mut mapping, |_| Err(std::io::ErrorKind::NotFound.into()), |_| None).is_none());
    }
}
