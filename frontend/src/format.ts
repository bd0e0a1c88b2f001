// The documents of src/evalkit/reports/format.py, field by field; tests/pages/test_format.py holds the two together.

export const SCHEMA = 1;

export type State = "done" | "running" | "unfinished";
export type ItemKind = "message" | "reply" | "result" | "end";

export interface Estimate {
  value: number | null;
  low: number | null;
  high: number | null;
  n: number | null;
}

export interface RunEntry {
  key: string;
  id: string;
  path: string;
  source: string;
  benchmark: string | null;
  agent: string | null;
  model: string | null;
  started: string | null;
  state: State;
  total: number;
  done: number;
  errors: number;
  buckets: Record<string, number>;
  rate: Estimate | null;
  selected: Estimate | null;
  cost_usd: number | null;
  tokens: number | null;
  seconds: number | null;
  problem: string | null;
}

export interface Pair {
  a: string;
  b: string;
}

export interface Index {
  schema: number;
  evalkit: string;
  written_at: string;
  live: boolean;
  runs: RunEntry[];
  pairs: Pair[];
  left_out: string[];
}

export interface Setting {
  key: string;
  value: unknown;
  origin: string | null;
  is_default: boolean;
}

export interface Histogram {
  edges: number[];
  counts: number[];
  unknown: number;
}

export interface RunProgress {
  seconds: number[];
  done: number[];
  resolved: number[];
  cost_usd: number[];
}

export interface InstanceGroup {
  value: string;
  total: number;
  buckets: Record<string, number>;
  rate: Estimate | null;
}

export interface Flips {
  against: string;
  gained: string[];
  lost: string[];
}

export interface RunPage {
  schema: number;
  entry: RunEntry;
  summary: Record<string, any>;
  settings: Setting[];
  versions: Record<string, string>;
  distributions: Record<string, Histogram>;
  progress: RunProgress | null;
  stages: Record<string, number>;
  groups: Record<string, InstanceGroup[]>;
  flips: Flips | null;
  instances: number;
  table_chunks: number;
  has_statements: boolean;
}

export interface TableChunk {
  ids: string[];
  keys: string[];
  buckets: string[];
  rates: (number | null)[];
  counted: number[];
  attempts: number[];
  scores: (number | null)[];
  costs_usd: (number | null)[];
  tokens: (number | null)[];
  steps: (number | null)[];
  seconds: (number | null)[];
  finished: (number | null)[];
  failures: (string | null)[];
  messages: (string | null)[];
  stages: Record<string, (number | null)[]>;
  fields: Record<string, string[]>;
}

export interface TableRows {
  places: number[];
  rows: TableChunk;
}

export interface Statements {
  texts: string[];
}

export interface Text {
  key: string;
  bytes: number;
  chunks: number;
  cut: boolean;
}

export interface TrajectoryOutline {
  kinds: ItemKind[];
  titles: string[];
  starts: (number | null)[];
  seconds: (number | null)[];
  tokens: (number | null)[];
  errors: boolean[];
  bytes: number[];
}

export interface TrajectoryChunk {
  first: number;
  count: number;
}

export interface TrajectoryPart {
  key: string;
  origin: string;
  agent: string;
  items: number;
  steps: number;
  bytes: number;
  chunks: TrajectoryChunk[];
}

export interface AttemptPage {
  number: number;
  facts: Record<string, any>;
  patch: Text | null;
  test_output: Text | null;
  agent_log: Text | null;
  trajectories: TrajectoryPart[];
  problem: string | null;
}

export interface InstancePage {
  schema: number;
  run: string;
  id: string;
  statement: string | null;
  gold_patch: string | null;
  fields: Record<string, string>;
  attempts: AttemptPage[];
}

export interface ComparisonPage {
  schema: number;
  a: string;
  b: string;
  comparison: Record<string, any>;
}
