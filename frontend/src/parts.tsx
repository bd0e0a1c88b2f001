// What several pages have in common.

import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { absolute, ago, count, percent } from "./figures";
import type { Estimate, RunEntry, TableChunk } from "./format";
import { useDocuments } from "./data";
import { Stack } from "./plots";

export const BUCKETS = ["resolved", "unresolved", "empty", "timeout", "error", "ungraded", "incomplete"];

const SHAPES: Record<string, string> = {
  resolved: "M2 6.5l3 3 5-7",
  unresolved: "M2.5 2.5l7 7M9.5 2.5l-7 7",
  empty: "M6 2a4 4 0 100 8 4 4 0 000-8M2.5 10.5l7-9",
  timeout: "M6 1.5a4.5 4.5 0 100 9 4.5 4.5 0 000-9M6 3.5V6.3l2 1.2",
  error: "M6 1.5v5.5M6 9.4v1.2",
  ungraded: "M4 4a2 2 0 114 0c0 1.3-2 1.4-2 3M6 9.6v1",
  incomplete: "M2 6h.8M5.6 6h.8M9.2 6h.8",
};

export function Icon(props: { bucket: string }) {
  return (
    <svg class={`icon ink-${BUCKETS.includes(props.bucket) ? props.bucket : "ungraded"}`} viewBox="0 0 12 12" aria-hidden="true">
      <path d={SHAPES[props.bucket] ?? SHAPES.ungraded} />
    </svg>
  );
}

export function Bucket(props: { name: string; short?: boolean }) {
  return (
    <span class="bucket" title={props.name}>
      <Icon bucket={props.name} />
      <span class={props.short ? "unseen" : ""}>{props.name}</span>
    </span>
  );
}

export const bucketParts = (buckets: Record<string, number>) =>
  [...BUCKETS, ...Object.keys(buckets).filter((each) => !BUCKETS.includes(each))].map((name) => ({ name, value: buckets[name] ?? 0, class: `fill-${BUCKETS.includes(name) ? name : "ungraded"}` }));

export const BucketBar = (props: { buckets: Record<string, number>; thin?: boolean }) => <Stack parts={bucketParts(props.buckets)} label="Instances" thin={props.thin} />;

export function Time(props: { at: string | null | undefined }) {
  return <time title={absolute(props.at)} dateTime={props.at ?? ""}>{ago(props.at)}</time>;
}

export function Rate(props: { estimate: Estimate | null }) {
  const { estimate } = props;
  if (!estimate || estimate.value == null) return <span class="muted">not graded</span>;
  return (
    <span class="rate">
      <b>{percent(estimate.value)}</b> <span class="muted">{range(estimate)}</span>
    </span>
  );
}

export const range = (estimate: Estimate | null | undefined): string => {
  if (estimate?.low == null || estimate.high == null) return "";
  return `${(estimate.low * 100).toFixed(1)}–${(estimate.high * 100).toFixed(1)}`;
};

export const nameOf = (run: RunEntry): string => [run.agent, run.model].filter(Boolean).join(" · ") || run.id;

export function Problem(props: { error: Error }) {
  return <p class="problem" role="alert">{props.error.message}</p>;
}

export const Loading = (props: { what?: string }) => <p class="muted loading" role="status">Loading{props.what ? ` ${props.what}` : ""}…</p>;

export function Section(props: { title: string; note?: ComponentChildren; children: ComponentChildren; class?: string; id?: string }) {
  return (
    <section class={props.class} aria-label={props.title}>
      <h2>{props.title}{props.note && <span class="note">{props.note}</span>}</h2>
      {props.children}
    </section>
  );
}

export function Copy(props: { text: string; label: string }) {
  const [said, say] = useState("");
  const field = useRef<HTMLElement>(null);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(props.text);
      say("copied");
    } catch {
      getSelection()?.selectAllChildren(field.current!);
      say("selected: copy it now");
    }
    setTimeout(() => say(""), 2000);
  };
  return (
    <span class="copy">
      <code ref={field}>{props.text}</code>
      <button type="button" class="quiet" onClick={copy} aria-label={props.label}>{said || "copy"}</button>
    </span>
  );
}

/** A field for text that is chosen while one types, but not at each letter. */
export function Search(props: { value: string; onChange: (text: string) => void; label: string; placeholder?: string; id?: string }) {
  const [text, setText] = useState(props.value);
  const timer = useRef(0);
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => {
    if (document.activeElement !== field.current) setText(props.value);
  }, [props.value]);
  return (
    <input
      ref={field}
      id={props.id}
      type="search"
      class="search"
      value={text}
      aria-label={props.label}
      placeholder={props.placeholder ?? props.label}
      spellcheck={false}
      autocomplete="off"
      onInput={(event) => {
        const next = event.currentTarget.value;
        setText(next);
        clearTimeout(timer.current);
        timer.current = window.setTimeout(() => props.onChange(next), 150);
      }}
      onKeyDown={(event) => {
        if (event.key === "Escape") {
          event.currentTarget.blur();
          event.stopPropagation();
        }
      }}
    />
  );
}

/** The chunks of a run's table as one. */
export function useTable(key: string, chunks: number): { table?: TableChunk; error?: Error } {
  const { values, complete, error } = useDocuments<TableChunk>(Array.from({ length: chunks }, (_, at) => `runs/${key}/table-${at}`));
  const joined = useRef<{ from: TableChunk[]; table: TableChunk }>(null);
  if (!complete) return { table: joined.current?.table, error };
  const same = joined.current && joined.current.from.length === values.length && values.every((each, at) => each === joined.current!.from[at]);
  if (!same) joined.current = { from: values, table: join(values) };
  return { table: joined.current!.table, error };
}

export function join(tables: TableChunk[]): TableChunk {
  if (tables.length === 1) return tables[0];
  const columns = (pick: (table: TableChunk) => any[] | undefined) => tables.flatMap((each) => pick(each) ?? Array(each.ids.length).fill(null));
  const named = (group: "stages" | "fields") =>
    Object.fromEntries([...new Set(tables.flatMap((each) => Object.keys(each[group] ?? {})))].map((name) => [name, columns((each) => each[group]?.[name])]));
  return {
    ids: columns((each) => each.ids),
    keys: columns((each) => each.keys),
    buckets: columns((each) => each.buckets),
    rates: columns((each) => each.rates),
    counted: columns((each) => each.counted),
    attempts: columns((each) => each.attempts),
    scores: columns((each) => each.scores),
    costs_usd: columns((each) => each.costs_usd),
    tokens: columns((each) => each.tokens),
    steps: columns((each) => each.steps),
    seconds: columns((each) => each.seconds),
    finished: columns((each) => each.finished),
    failures: columns((each) => each.failures),
    messages: columns((each) => each.messages),
    stages: named("stages"),
    fields: named("fields"),
  };
}

/** What a key does on a page, unless one types in a field. */
export function useKeys(keys: Record<string, (event: KeyboardEvent) => void>): void {
  const current = useRef(keys);
  current.current = keys;
  useEffect(() => {
    const listen = (event: KeyboardEvent) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
      const target = event.target as HTMLElement;
      if (/^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName) && (target as HTMLInputElement).type !== "checkbox") return;
      if (document.querySelector("dialog[open]")) return;
      const act = current.current[event.key];
      if (act) {
        event.preventDefault();
        act(event);
      }
    };
    addEventListener("keydown", listen);
    return () => removeEventListener("keydown", listen);
  }, []);
}

export const instances = (size: number): string => `${count(size)} ${size === 1 ? "instance" : "instances"}`;

export const TOP = 44;

/** The width of the window, for what CSS cannot decide. */
export function useWidth(): number {
  const [width, setWidth] = useState(innerWidth);
  useEffect(() => {
    const tell = () => setWidth(innerWidth);
    addEventListener("resize", tell);
    return () => removeEventListener("resize", tell);
  }, []);
  return width;
}
