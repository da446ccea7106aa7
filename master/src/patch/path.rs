use std::borrow::Cow;

/// A path of a `---` or `+++` line, or of one side of `diff --git`: without its quotes and its first component, as
/// `git apply` takes it; `None` for `/dev/null`.
pub(super) fn of_side(text: &str) -> Option<Cow<'_, str>> {
    // What follows a tab is a date, or nothing, where the name has a space.
    let text = match text.starts_with('"').then(|| end_of_quoted(text)).flatten() {
        Some(end) => &text[..=end],
        None => text.split('\t').next().unwrap_or_default(),
    };
    match plain(text) {
        Cow::Borrowed("/dev/null") => None,
        Cow::Borrowed(path) => Some(Cow::Borrowed(without_prefix(path))),
        Cow::Owned(path) => Some(Cow::Owned(without_prefix(&path).to_owned())),
    }
}

/// A path without its quotes; git writes one in quotes if it has other bytes than a terminal shows.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    match text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(quoted) => Cow::Owned(unquoted(quoted)),
        None => Cow::Borrowed(text),
    }
}

/// Both paths of `diff --git a/OLD b/NEW`, where no other line names them: then they are the same.
pub(super) fn of_header(names: &str) -> Option<Cow<'_, str>> {
    if names.starts_with('"') {
        return of_side(&names[..=end_of_quoted(names)?]).map(|path| Cow::Owned(path.into_owned()));
    }
    if let Some((old, _)) = names.split_once(" \"") {
        return of_side(old);
    }
    // Nothing but its length tells where the first one ends, if there are spaces in it.
    let half = names.len() / 2;
    let (old, new) = (names.get(..half)?, names.get(half + 1..)?);
    (without_prefix(old) == without_prefix(new)).then(|| Cow::Borrowed(without_prefix(new)))
}

fn without_prefix(path: &str) -> &str {
    path.split_once('/').map_or(path, |(_, rest)| rest)
}

/// Where the quote that begins a text is closed.
fn end_of_quoted(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    text.bytes().enumerate().skip(1).find_map(|(at, byte)| {
        let is_end = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end.then_some(at)
    })
}

/// C's escapes, as git writes them; bytes that are no UTF-8 become the replacement character.
fn unquoted(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes().peekable();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next() {
            Some(digit @ b'0'..=b'3') => {
                let mut value = digit - b'0';
                for _ in 0..2 {
                    if let Some(next) = rest.next_if(|b| matches!(b, b'0'..=b'7')) {
                        value = (value << 3) | (next - b'0');
                    }
                }
                bytes.push(value);
            }
            Some(letter) => bytes.push(match letter {
                b'a' => 7,
                b'b' => 8,
                b't' => b'\t',
                b'n' => b'\n',
                b'v' => 11,
                b'f' => 12,
                b'r' => b'\r',
                other => other,
            }),
            None => {}
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
