/** What is answered. A word that this client is too old to know is `unknown`. */

import type { Value } from "./requests.js";

/** Who filled a row of an answer. */
export type Source =
  | "unknown"
  | "item_vector"
  | "user_vector"
  | "fold_in"
  | "blend"
  | "popular"
  | "editorial"
  | "exploration";

/** How candidates were found. */
export type SearchPath = "unknown" | "hnsw" | "exact";

/** What kept an answer shorter than asked. */
export type LimitingRule = "unknown" | "catalogue" | "candidate_items" | "excluded" | "filter" | "placement";

/** What an answer had to do without. */
export type Degradation =
  | "unknown"
  | "catalog_stale"
  | "history_unavailable"
  | "metadata_unavailable"
  | "rules_skipped"
  | "filter_skipped";

/** Who had an answer: nobody, the worker that answered, or another worker of the instance. */
export type CacheSource = "unknown" | "none" | "worker" | "instance";

/** What a score is made of. */
export interface ScoreExplanation {
  likeness?: number;
  /** Popularity prior included. */
  affinity?: number;
  /** The part of `affinity` that is the prior. */
  popularityContribution?: number;
  /** The cosine of the item's bare vector and the user's. */
  userSimilarity?: number;
  /** The same with the context items' mean unit vector. */
  contextSimilarity?: number;
  /** What the placement's rules did to this row, in their order. */
  effects: { rule: string; weight?: number }[];
}

/** One item of an answer. */
export interface Recommendation {
  itemId: string;
  /** Larger is better; scores compare within one answer. */
  score: number;
  source: Source;
  /** Set when the request said `explain`. */
  explanation?: ScoreExplanation;
  /** The fields of `readMask` by name: one value, or those of a list. */
  metadata: Record<string, Value[]>;
  /** Which step of the placement's fallback chain filled this row, from 1 on; 0 when none had to. */
  fallbackStep: number;
}

/** Why fewer items came back than were asked for. All are counts of items. */
export interface Shortfall {
  requestedCount: number;
  returnedCount: number;
  eligibleCount: number;
  limitingRule: LimitingRule;
}

/** How a placement answered. */
export interface PlacementUse {
  name: string;
  version: string;
  experiment: string;
  variant: string;
  /** `similar`, `personalize` or `related`; empty when the answer is suppressed. */
  mode: string;
  /** Why the placement shows nothing here and now; empty when it does. */
  suppressedReason: string;
  userContextSimilarity?: number;
}

/** An answer, best item first. */
export interface Recommendations {
  results: Recommendation[];
  snapshotId: string;
  /** Ids of the request that have no vector in the snapshot. */
  missingIds: string[];
  /** Unset when as many came back as were asked for. */
  shortfall?: Shortfall;
  searchPath: SearchPath;
  /** The share of the snapshot's items that were eligible, 0 to 1; unset when only candidates were checked. */
  selectivity?: number;
  /** `related` only: the weight that taste had. */
  userImpact?: number;
  /** `recommend` only. */
  placement?: PlacementUse;
  /** Names this answer in events that come of it. */
  attributionToken: string;
  /** How long each stage took; empty unless the request said `explain`. */
  stageSeconds: Record<string, number>;
  /** How old what was known of the catalogue is; unset where it took no part. */
  catalogAgeSeconds?: number;
  /** What the answer had to do without; empty when all is well. */
  degradations: Degradation[];
  /** Who had the answer, and since when; unset where a kept one could not do. */
  cache?: { source: CacheSource; ageSeconds: number };
}
