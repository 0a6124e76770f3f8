//! Stacks as pprof reads them.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message as _;
use tiphys_proto::profile::{Location, Mapping, Profile, Sample, ValueType};

use super::code;
use super::{Error, Stacks};

/// What was seen of a process from `began`, since the Unix epoch, during `took`, in `looks` at it.
pub(super) fn profile(
    stacks: &Stacks,
    code: &[code::Mapping],
    (began, took): (Duration, Duration),
    looks: u64,
) -> Profile {
    let mut texts = Texts::default();
    let count = ValueType { r#type: texts.place("samples"), unit: texts.place("count") };
    let time = ValueType { r#type: texts.place("cpu"), unit: texts.place("nanoseconds") };
    // Looks come late on a busy machine; each stands for the time until the next.
    let period = whole(took.as_nanos().checked_div(looks.into()).unwrap_or_default());
    let mapping = (1..).zip(code).map(|(id, mapping)| Mapping {
        id,
        memory_start: mapping.memory.start,
        memory_limit: mapping.memory.end,
        file_offset: mapping.offset,
        filename: texts.place(&mapping.file),
        build_id: texts.place(&mapping.build_id),
    });
    let mapping: Vec<_> = mapping.collect();
    let mut locations = BTreeMap::new();
    let sample = stacks.iter().map(|(stack, seen)| {
        let location_id = stack.iter().map(|address| {
            let next = locations.len() as u64 + 1;
            *locations.entry(*address).or_insert(next)
        });
        let seen = whole((*seen).into());
        Sample { location_id: location_id.collect(), value: vec![seen, seen.saturating_mul(period)] }
    });
    let sample = sample.collect();
    let location = locations.into_iter().map(|(address, id)| {
        let within = code.iter().position(|mapping| mapping.memory.contains(&address));
        Location { id, mapping_id: within.map_or(0, |index| index as u64 + 1), address }
    });
    Profile {
        sample_type: vec![count, time],
        sample,
        mapping,
        location: location.collect(),
        string_table: texts.0,
        time_nanos: whole(began.as_nanos()),
        duration_nanos: whole(took.as_nanos()),
        period_type: Some(time),
        period,
    }
}

fn whole(number: u128) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The file that pprof reads: protobuf below gzip.
///
/// # Errors
/// [`Error::Pack`].
pub fn pack(profile: &Profile) -> Result<Vec<u8>, Error> {
    let mut file = GzEncoder::new(Vec::new(), Compression::default());
    file.write_all(&profile.encode_to_vec()).map_err(Error::Pack)?;
    file.finish().map_err(Error::Pack)
}

/// Texts by their places.
struct Texts(Vec<String>);

impl Default for Texts {
    fn default() -> Self {
        Self(vec![String::new()])
    }
}

impl Texts {
    fn place(&mut self, text: &str) -> i64 {
        let place = self.0.iter().position(|known| known == text).unwrap_or_else(|| {
            self.0.push(text.to_owned());
            self.0.len() - 1
        });
        whole(place as u128)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn each_address_and_each_text_is_written_once_and_time_is_what_the_looks_stand_for() {
        let mapping = |start: u64, file: &str| code::Mapping {
            memory: start..start + 0x100,
            offset: 0x40,
            file: file.to_owned(),
            build_id: String::new(),
        };
        let code = [mapping(0x1000, "/bin/x"), mapping(0x2000, "/lib/y")];
        let stacks = Stacks::from([(vec![0x2010, 0x1010], 3), (vec![0x1020, 0x1010], 1), (vec![0x9999], 1)]);
        let began = Duration::from_secs(1_700_000_000);
        let written = profile(&stacks, &code, (began, Duration::from_secs(2)), 100);

        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(pack(&written).unwrap().as_slice()).read_to_end(&mut bytes).unwrap();
        let read = Profile::decode(bytes.as_slice()).unwrap();
        assert_eq!(read, written);
        assert_eq!(read.string_table, ["", "samples", "count", "cpu", "nanoseconds", "/bin/x", "/lib/y"]);
        assert_eq!((read.period, read.duration_nanos), (20_000_000, 2_000_000_000));
        let at = |id: u64| read.location.iter().find(|location| location.id == id).unwrap();
        let told = read.sample.iter().map(|sample| {
            let stack: Vec<_> =
                sample.location_id.iter().map(|id| (at(*id).address, at(*id).mapping_id)).collect();
            (stack, sample.value.clone())
        });
        assert_eq!(
            told.collect::<Vec<_>>(),
            [
                (vec![(0x1020, 1), (0x1010, 1)], vec![1, 20_000_000]),
                (vec![(0x2010, 2), (0x1010, 1)], vec![3, 60_000_000]),
                (vec![(0x9999, 0)], vec![1, 20_000_000]),
            ]
        );
        assert_eq!(read.location.len(), 4);
    }

    #[test]
    fn nothing_seen_is_a_profile_too() {
        let empty = profile(&Stacks::new(), &[], (Duration::ZERO, Duration::ZERO), 0);
        assert_eq!((empty.sample.len(), empty.period), (0, 0));
    }
}
