//! Thrift's compact protocol, in which Parquet writes what it says about its data.

/// More nesting than Parquet's metadata have is refused.
const DEEPEST: u32 = 16;

/// A value as it stands in the file. Each takes at least one byte there, so memory grows with the bytes that are read.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'a> {
    Bool(bool),
    Integer(i64),
    Bytes(&'a [u8]),
    List(Vec<Value<'a>>),
    /// Fields by their numbers.
    Struct(Vec<(i64, Value<'a>)>),
    /// Numbers with a point, and maps: nothing that is needed here.
    Other,
}

/// Reads a structure and takes its bytes from the front of `input`; `None` if it is damaged or cut off.
pub(super) fn read_struct<'a>(input: &mut &'a [u8]) -> Option<Value<'a>> {
    read(input, STRUCT, 0)
}

impl<'a> Value<'a> {
    pub(super) fn field(&self, number: i64) -> Option<&Value<'a>> {
        match self {
            Self::Struct(fields) => fields.iter().find(|field| field.0 == number).map(|field| &field.1),
            _ => None,
        }
    }

    pub(super) fn integer(&self, number: i64) -> Option<i64> {
        match self.field(number)? {
            Self::Integer(value) => Some(*value),
            _ => None,
        }
    }

    /// A length, count or place, which cannot be below 0.
    pub(super) fn size(&self, number: i64) -> Option<u64> {
        self.integer(number)?.try_into().ok()
    }

    pub(super) fn bool(&self, number: i64) -> Option<bool> {
        match self.field(number)? {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    pub(super) fn text(&self, number: i64) -> Option<&'a str> {
        match self.field(number)? {
            Self::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    pub(super) fn list(&self, number: i64) -> Option<&[Value<'a>]> {
        match self.field(number)? {
            Self::List(values) => Some(values),
            _ => None,
        }
    }
}

const STRUCT: u8 = 12;

fn read<'a>(input: &mut &'a [u8], kind: u8, depth: u32) -> Option<Value<'a>> {
    if depth > DEEPEST {
        return None;
    }
    match kind {
        // In a list truth values have a byte each; in a structure the field's kind says which one it is.
        1 | 2 => byte(input).map(|value| Value::Bool(value == 1)),
        3 => byte(input).map(|value| Value::Integer(i64::from(value as i8))),
        4..=6 => zigzag(input).map(Value::Integer),
        7 => take(input, 8).map(|_| Value::Other),
        8 => {
            let length = varint(input)?;
            take(input, length).map(Value::Bytes)
        }
        9 | 10 => {
            let header = byte(input)?;
            let count = if header >> 4 == 15 { varint(input)? } else { u64::from(header >> 4) };
            if count > input.len() as u64 {
                return None;
            }
            (0..count).map(|_| read(input, header & 15, depth + 1)).collect::<Option<_>>().map(Value::List)
        }
        11 => {
            let count = varint(input)?;
            if count > 0 {
                let kinds = byte(input)?;
                for _ in 0..count {
                    read(input, kinds >> 4, depth + 1)?;
                    read(input, kinds & 15, depth + 1)?;
                }
            }
            Some(Value::Other)
        }
        STRUCT => {
            let (mut fields, mut number) = (Vec::new(), 0_i64);
            loop {
                let header = byte(input)?;
                if header == 0 {
                    return Some(Value::Struct(fields));
                }
                number = if header >> 4 == 0 { zigzag(input)? } else { number.checked_add(i64::from(header >> 4))? };
                let value = match header & 15 {
                    kind @ (1 | 2) => Value::Bool(kind == 1),
                    kind => read(input, kind, depth + 1)?,
                };
                fields.push((number, value));
            }
        }
        _ => None,
    }
}

/// Seven bits a byte, the lowest first; all but the last byte have their highest bit set.
pub(super) fn varint(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let next = byte(input)?;
        value |= u64::from(next & 0x7f) << shift;
        if next < 0x80 {
            return Some(value);
        }
    }
    None
}

fn zigzag(input: &mut &[u8]) -> Option<i64> {
    varint(input).map(|value| (value >> 1) as i64 ^ -((value & 1) as i64))
}

fn byte(input: &mut &[u8]) -> Option<u8> {
    take(input, 1).map(|bytes| bytes[0])
}

pub(super) fn take<'a>(input: &mut &'a [u8], length: u64) -> Option<&'a [u8]> {
    let (taken, rest) = input.split_at_checked(usize::try_from(length).ok()?)?;
    *input = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_structure_is_read_as_the_protocol_writes_it() {
        // Field 1: -3 (zigzag 5); field 4, three on: "ab"; field 5: true; field 21 by its full number: [7, 8]; the end.
        let bytes = [0x15, 5, 0x38, 2, b'a', b'b', 0x11, 0x09, 42, 0x25, 14, 16, 0, 99];
        let mut input = bytes.as_slice();
        let value = read_struct(&mut input).unwrap();
        assert_eq!(
            (value.integer(1), value.size(1), value.text(4), value.bool(5)),
            (Some(-3), None, Some("ab"), Some(true))
        );
        assert_eq!(value.list(21), Some([Value::Integer(7), Value::Integer(8)].as_slice()));
        assert_eq!(input, [99]);
        for end in 0..bytes.len() - 1 {
            assert_eq!(read_struct(&mut &bytes[..end]), None, "cut after {end}");
        }
    }

    #[test]
    fn promised_lengths_and_endless_nesting_are_refused() {
        let long_text = [0x18, 0xff, 0xff, 0xff, 0xff, 0x0f, b'a'];
        let long_list = [0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x0f, 0];
        for bytes in [long_text.as_slice(), &long_list, &[0x1c; 1000], &[0xff; 20]] {
            assert_eq!(read_struct(&mut &bytes[..]), None);
        }
    }
}
