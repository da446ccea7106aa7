//! From places in a TOML text to lines and keys, and back: what an error message needs.

use toml::de::{DeTable, DeValue};

/// The line of a byte offset, from 1.
pub(crate) fn line_at(text: &str, offset: usize) -> usize {
    let before = &text.as_bytes()[..offset.min(text.len())];
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

/// The dotted key whose value lies around an offset, the innermost one.
pub(crate) fn key_at(table: &DeTable<'_>, offset: usize) -> Option<String> {
    let around = |span: std::ops::Range<usize>| span.contains(&offset) || span.start == offset;
    // A table's own span covers its header only: its entries are asked first.
    let inner = table.iter().find_map(|(key, value)| {
        let deeper = tables_in(value.get_ref()).find_map(|table| key_at(table, offset))?;
        Some(format!("{}.{deeper}", key.get_ref()))
    });
    inner.or_else(|| {
        let (key, _) = table.iter().find(|(key, value)| around(key.span()) || around(value.span()))?;
        Some(key.get_ref().to_string())
    })
}

/// Where a dotted key stands.
pub(crate) fn offset_of(table: &DeTable<'_>, key: &[&str]) -> Option<usize> {
    let (first, rest) = key.split_first()?;
    let (found, value) = table.get_key_value(*first)?;
    if rest.is_empty() || !matches!(value.get_ref(), DeValue::Table(_) | DeValue::Array(_)) {
        return Some(found.span().start);
    }
    tables_in(value.get_ref()).find_map(|inner| offset_of(inner, rest))
}

/// A table, or those of an array, whose keys are called alike.
fn tables_in<'t, 'a>(value: &'t DeValue<'a>) -> impl Iterator<Item = &'t DeTable<'a>> {
    let several = value.as_array().into_iter().flat_map(|array| array.iter());
    value.as_table().into_iter().chain(several.filter_map(|item| item.get_ref().as_table()))
}
