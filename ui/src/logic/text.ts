// Text that others wrote (packets, error messages, bucket names), made safe to look at. Owns the visible escapes and the cut of
// long text; not the markup around it.
//
// Invariant: what comes out has no control character, no bidirectional control, no invisible character and no unpaired
// surrogate, and every such character of what went in stands there as an escape. Nothing is dropped.

/** More characters than this are shown only on request. */
export const SHOWN_CHARACTERS_MAX = 400;

const HIDDEN =
  /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]|\u{e0001}|[\u{e0020}-\u{e007f}]/gu;

function escapeOf(character: string): string {
  const code = character.codePointAt(0) ?? 0;
  if (code < 0x100) return `\\x${code.toString(16).padStart(2, "0")}`;
  return `\\u{${code.toString(16)}}`;
}

/** `text` with everything that cannot be seen, or that moves what stands beside it, written as an escape. */
export function visible(text: string): string {
  return text.replace(HIDDEN, escapeOf);
}

/** The beginning of `text`, whole characters only, and whether that is all of it. */
export function cut(text: string, max = SHOWN_CHARACTERS_MAX): { shown: string; rest: number } {
  if (text.length <= max) return { shown: text, rest: 0 };
  const characters = Array.from(text);
  if (characters.length <= max) return { shown: text, rest: 0 };
  return { shown: characters.slice(0, max).join(""), rest: characters.length - max };
}

/** A string as one word of a POSIX shell. */
export function shellWord(text: string): string {
  if (/^[A-Za-z0-9_./:=@%+,-]+$/.test(text)) return text;
  return `'${text.replaceAll("'", "'\\''")}'`;
}
