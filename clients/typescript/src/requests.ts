/** What can be asked. Bounds and defaults are the server's: it says which field is wrong, and how. */

/** A value of a field. Dates count to the millisecond. */
export type Value = string | number | boolean | Date;

/** What the metadata of returned items must be like: a condition on a declared field, or several joined. */
export type Filter =
  | { allOf: readonly Filter[] }
  | { anyOf: readonly Filter[] }
  | { noneOf: readonly Filter[] }
  | { field: string; equals: Value }
  | { field: string; oneOf: readonly Value[] }
  | { field: string; contains: Value }
  | { field: string; exists: boolean }
  | ({ field: string } & Range);

/** At most one bound of each side, and at least one bound. */
export type Range = Lower & Upper & ({ minimum: Value } | { above: Value } | { maximum: Value } | { below: Value });
type Lower = { minimum?: Value; above?: never } | { above?: Value; minimum?: never };
type Upper = { maximum?: Value; below?: never } | { below?: Value; maximum?: never };

/** How a request is to be answered; what is left out is the server's choice. */
export interface Options {
  /** How many items to return, 1 to 500; 10 unless set. */
  pageSize?: number;
  /** Items that must not be returned; at most 1,000. */
  excludeItemIds?: readonly string[];
  /** Only these may be returned, at most 1,000; empty means none. */
  candidateItemIds?: readonly string[];
  /** What the metadata of returned items must be like. Needs a server with a catalogue. */
  filter?: Filter;
  /** The declared fields to return as `metadata` of each item; at most 32. */
  readMask?: readonly string[];
  /** How old what is known of the catalogue may be, 0 to 86,400; 0 asks the catalogue itself. */
  maxStalenessSeconds?: number;
  /** Whether what the user is known to have had is left out; it is, unless set. */
  excludeSeen?: boolean;
  /** What the popularity prior counts in affinity, -10 to 10. */
  popularityWeight?: number;
  /** How many candidates the graph search keeps, 1 to 1,000. */
  efSearch?: number;
  /** Whether to compare with every eligible item instead of searching the graph. */
  exact?: boolean;
  /** The snapshot that must answer. */
  snapshotId?: string;
  /** Whether an id without a vector fails the request instead of being listed in `missingIds`. */
  strict?: boolean;
  /** Whether the answer says what its scores are made of and how long its stages took. */
  explain?: boolean;
  /** Whether the answer is made for this request even where one to an equal request is kept. */
  bypassCache?: boolean;
}

/** An item the user dealt with, and how much that counts: above 0, at most 1,000,000; 1 unless set. */
export interface WeightedItem {
  itemId: string;
  weight?: number;
}

/** Asks for the items most like one or several seed items; 1 to 100. */
export interface SimilarRequest extends Options {
  itemIds: readonly string[];
}

/** Asks for the items that suit a user best, by id, by recent items (oldest first, at most 200), or both. */
export interface PersonalizeRequest extends Options {
  userId?: string;
  recentItems?: readonly WeightedItem[];
}

/** Asks for the items that go with what is on screen (1 to 100 items), for this user. */
export interface RelatedRequest extends Options {
  itemIds: readonly string[];
  userId?: string;
  recentItems?: readonly WeightedItem[];
  /** How much taste counts against context, 0 to 1; 0.5 unless set. */
  userImpact?: number;
}

/** Asks for what a placement shows here and now. */
export interface RecommendRequest extends Options {
  placement: string;
  /** What is on screen, or in the basket; at most 100 items. */
  itemIds?: readonly string[];
  userId?: string;
  recentItems?: readonly WeightedItem[];
  /** The circumstances, by the names that the placement declares. */
  context?: Readonly<Record<string, Value>>;
  /** Whom experiments assign to variants; `userId` unless set. */
  experimentUnit?: string;
  /** Variants to answer instead of those assigned, by experiment. */
  forcedVariants?: Readonly<Record<string, string>>;
}

/** A row of a batch: one request of any kind. */
export type BatchRow =
  | { similar: SimilarRequest }
  | { personalize: PersonalizeRequest }
  | { related: RelatedRequest }
  | { recommend: RecommendRequest };
