/// Longer names are cut: C11 promises to tell names apart by their first 63 characters, and suffixes follow.
const MOST_CHARACTERS: usize = 32;

/// `mask_` and the model's name in lower case, in which runs of anything but ASCII letters and digits become one `_`.
///
/// The result is an identifier and a file name everywhere: it is no keyword, starts with a letter, holds no `__`.
pub(crate) fn identifier(name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let joined = words.collect::<Vec<_>>().join("_").to_lowercase();
    let cut = joined[..joined.len().min(MOST_CHARACTERS)].trim_end_matches('_');
    format!("mask_{}", if cut.is_empty() { "model" } else { cut })
}

#[cfg(test)]
mod tests {
    use super::identifier;

    #[test]
    fn a_name_becomes_an_identifier_in_c_and_rust() {
        assert_eq!(identifier("bert-base"), "mask_bert_base");
        assert_eq!(identifier("ViT-B/16 (224)"), "mask_vit_b_16_224");
        assert_eq!(identifier("7up"), "mask_7up");
        assert_eq!(identifier("while"), "mask_while");
        assert_eq!(identifier("__größe__"), "mask_gr_e");
        assert_eq!(identifier("模型"), "mask_model");
        assert_eq!(identifier(""), "mask_model");
        assert_eq!(identifier(&"ab-".repeat(1000)), "mask_ab_ab_ab_ab_ab_ab_ab_ab_ab_ab_ab");
    }
}
