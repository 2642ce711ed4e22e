//! Keys packed to two thirds of their text, in an order that is the order of the texts.

use crate::model::blob::Integrity;

/// The characters of base64 in the order of their codes: six bits each by rank compare as the texts do.
const RANKED: &[u8; 64] = b"+/0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Algorithms in the order of their names, with the digits of their hashes (without padding) and the padding.
const ALGORITHMS: [(&str, usize, &str); 3] = [("sha256-", 43, "="), ("sha384-", 64, ""), ("sha512-", 86, "==")];

/// The algorithm's number, then six bits for each character.
pub(super) fn pack(key: &Integrity) -> Vec<u8> {
    let text = key.as_str();
    let found = ALGORITHMS.iter().enumerate().find_map(|(id, (name, ..))| Some((id, text.strip_prefix(name)?)));
    let (id, digits) = found.unwrap_or_default();
    let ranks = digits.bytes().filter_map(|byte| RANKED.iter().position(|other| *other == byte));
    let mut out = vec![u8::try_from(id).unwrap_or_default()];
    let (mut bits, mut count) = (0usize, 0);
    for rank in ranks {
        bits = (bits << 6 | rank) & 0xffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count & 0xff) as u8);
        }
    }
    if count > 0 {
        out.push((bits << (8 - count) & 0xff) as u8);
    }
    out
}

/// What [`pack`] made; `None` for anything else.
pub(super) fn unpack(packed: &[u8]) -> Option<Integrity> {
    let (id, bytes) = packed.split_first()?;
    let (name, digits, padding) = ALGORITHMS.get(usize::from(*id))?;
    let mut text = String::from(*name);
    let (mut bits, mut count) = (0usize, 0);
    for byte in bytes {
        bits = (bits << 8 | usize::from(*byte)) & 0xffff;
        count += 8;
        while count >= 6 && text.len() < name.len() + digits {
            count -= 6;
            text.push(char::from(RANKED[bits >> count & 0x3f]));
        }
    }
    text.push_str(padding);
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;

    fn key() -> impl Strategy<Value = Integrity> {
        let sized = prop_oneof![Just(("sha256", 32)), Just(("sha384", 48)), Just(("sha512", 64))];
        let hashes = sized.prop_flat_map(|(name, len)| (Just(name), proptest::collection::vec(any::<u8>(), len)));
        hashes.prop_map(|(name, hash)| format!("{name}-{}", STANDARD.encode(hash)).parse().expect("a key"))
    }

    proptest! {
        #[test]
        fn a_packed_key_is_the_same_key_in_the_same_order(one in key(), other in key()) {
            prop_assert_eq!(unpack(&pack(&one)), Some(one.clone()));
            prop_assert_eq!(pack(&one).cmp(&pack(&other)), one.cmp(&other));
        }
    }

    #[test]
    fn what_was_not_packed_is_no_key() {
        for wrong in [&b""[..], b"\x00", b"\x07abc", b"\x00abc"] {
            assert_eq!(unpack(wrong), None, "{wrong:?}");
        }
    }
}
