// Unified diffs, line by line, and the few kinds of words that syntax colours tell apart.

export type LineKind = "file" | "hunk" | "add" | "remove" | "same" | "note";

export interface Line {
  kind: LineKind;
  text: string;
  old: number | null;
  new: number | null;
  language: string;
}

const LANGUAGES: Record<string, string> = { py: "python", pyi: "python", js: "c", ts: "c", jsx: "c", tsx: "c", mjs: "c", c: "c", h: "c", cc: "c", cpp: "c", hpp: "c", cs: "c", go: "c", rs: "c", java: "c", kt: "c", swift: "c", scala: "c", php: "c", css: "c", rb: "python", sh: "python", toml: "python", yml: "python", yaml: "python", cfg: "python", ini: "python" };

export function readDiff(text: string): Line[] {
  const lines: Line[] = [];
  let [old, now] = [0, 0];
  let [oldLeft, nowLeft] = [0, 0];
  let language = "";
  for (const raw of text.split("\n")) {
    const line = raw.endsWith("\r") ? raw.slice(0, -1) : raw;
    const inHunk = oldLeft > 0 || nowLeft > 0;
    if (inHunk && line.startsWith("+")) {
      lines.push({ kind: "add", text: line.slice(1), old: null, new: now++, language });
      nowLeft--;
    } else if (inHunk && line.startsWith("-")) {
      lines.push({ kind: "remove", text: line.slice(1), old: old++, new: null, language });
      oldLeft--;
    } else if (inHunk && (line.startsWith(" ") || line === "")) {
      lines.push({ kind: "same", text: line.slice(1), old: old++, new: now++, language });
      oldLeft--;
      nowLeft--;
    } else if (line.startsWith("@@")) {
      const found = /^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@/.exec(line);
      if (found) {
        [old, now] = [Number(found[1]), Number(found[3])];
        [oldLeft, nowLeft] = [Number(found[2] ?? 1), Number(found[4] ?? 1)];
      }
      lines.push({ kind: "hunk", text: line, old: null, new: null, language });
    } else if (line.startsWith("diff --git ")) {
      const name = /^diff --git [ab]\/(.*) b\/\1$/.exec(line)?.[1] ?? / b\/(.*)$/.exec(line)?.[1] ?? line.slice(11);
      language = languageOf(name);
      lines.push({ kind: "file", text: name, old: null, new: null, language });
    } else if (line.startsWith("+++ ")) {
      const name = line.slice(4).replace(/^b\//, "").replace(/\t.*$/, "");
      language = languageOf(name);
      if (lines.at(-1)?.kind !== "file" && !lines.some((each) => each.kind === "file" && each.text === name)) lines.push({ kind: "file", text: name, old: null, new: null, language });
    } else if (!/^(--- |index |\\ )/.test(line) && line) {
      lines.push({ kind: "note", text: line, old: null, new: null, language });
    }
  }
  return lines;
}

const languageOf = (name: string): string => LANGUAGES[/\.(\w+)$/.exec(name)?.[1].toLowerCase() ?? ""] ?? "";

export interface Word {
  kind: "" | "comment" | "string" | "number" | "keyword" | "name";
  text: string;
}

const STRINGS = String.raw`"(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?`;
const REST = String.raw`|(\b\d[\w.]*)|([A-Za-z_]\w*)`;
const RULES: Record<string, RegExp> = {
  python: new RegExp(String.raw`(#.*)|("""(?:.*?""")?|'''(?:.*?''')?|${STRINGS})${REST}`, "g"),
  c: new RegExp(String.raw`(\/\/.*|\/\*.*?(?:\*\/|$))|(${STRINGS}|` + "`[^`]*`?" + `)${REST}`, "g"),
};
const KEYWORDS = new Set(
  "and as assert async await break case catch class const continue def default del do elif else end enum except export extends False final finally fn for from func function global if impl import in interface is lambda let match mod module mut new nil None nonlocal not null or package pass private protected pub public raise require return self static struct super switch this throw true True false try type typedef typeof undefined use var void while with yield".split(" "),
);
const LONGEST = 2000;

export function wordsOf(text: string, language: string): Word[] {
  const rule = RULES[language];
  if (!rule || text.length > LONGEST) return [{ kind: "", text }];
  const words: Word[] = [];
  let at = 0;
  let plain = "";
  const flush = () => {
    if (plain) words.push({ kind: "", text: plain });
    plain = "";
  };
  for (const match of text.matchAll(rule)) {
    plain += text.slice(at, match.index);
    at = match.index + match[0].length;
    const kind = match[1] ? "comment" : match[2] ? "string" : match[3] ? "number" : KEYWORDS.has(match[0]) ? "keyword" : text[at] === "(" ? "name" : "";
    if (!kind) plain += match[0];
    else {
      flush();
      words.push({ kind, text: match[0] });
    }
  }
  plain += text.slice(at);
  flush();
  return words;
}
