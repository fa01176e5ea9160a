/** Requests to messages, messages to answers. */

import { create, type DescEnum, type MessageInitShape } from "@bufbuild/protobuf";
import { type Duration, durationFromMs, durationMs, timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";

import { AnnserveError, errorOfStatus } from "./errors.js";
import {
  type FieldConditionSchema,
  type FieldRangeSchema,
  type FieldValue,
  type FieldValueSchema,
  type FilterSchema,
} from "./gen/annserve/v1/filter_pb.js";
import {
  CacheSourceSchema,
  DegradationSchema,
  LimitingRuleSchema,
  type PlacementUse as PlacementUseMessage,
  type Recommendation as RecommendationMessage,
  type Recommendations as RecommendationsMessage,
  type RecommendOptionsSchema,
  type ScoreExplanation as ScoreExplanationMessage,
  SearchPathSchema,
  type ServingInfo,
  type Shortfall as ShortfallMessage,
  SourceSchema,
} from "./gen/annserve/v1/recommendation_pb.js";
import {
  type BatchRecommendResponse,
  type BatchRecommendRowSchema,
  PersonalizeRequestSchema,
  RecommendRequestSchema,
  RelatedRequestSchema,
  SimilarRequestSchema,
} from "./gen/annserve/v1/recommendation_service_pb.js";
import type {
  BatchRow,
  Filter,
  Options,
  PersonalizeRequest,
  RecommendRequest,
  RelatedRequest,
  SimilarRequest,
  Value,
} from "./requests.js";
import type {
  CacheSource,
  Degradation,
  LimitingRule,
  PlacementUse,
  Recommendation,
  Recommendations,
  ScoreExplanation,
  SearchPath,
  Shortfall,
  Source,
} from "./results.js";

/** What every single call answers with. */
export interface Answer {
  recommendations?: RecommendationsMessage;
  servingInfo?: ServingInfo;
}

export function similarMessage(request: SimilarRequest) {
  return create(SimilarRequestSchema, { itemIds: [...request.itemIds], options: options(request) });
}

export function personalizeMessage(request: PersonalizeRequest) {
  const { userId = "", recentItems = [] } = request;
  return create(PersonalizeRequestSchema, { userId, recentItems: [...recentItems], options: options(request) });
}

export function relatedMessage(request: RelatedRequest) {
  const { itemIds, userId = "", recentItems = [], userImpact } = request;
  return create(RelatedRequestSchema, {
    itemIds: [...itemIds],
    userId,
    recentItems: [...recentItems],
    ...given({ userImpact }),
    options: options(request),
  });
}

export function recommendMessage(request: RecommendRequest) {
  const { placement, itemIds = [], userId = "", recentItems = [], experimentUnit = "", forcedVariants = {} } = request;
  const context = Object.entries(request.context ?? {}).map(([name, value]) => [name, { value: kindOf(value) }]);
  return create(RecommendRequestSchema, {
    placement,
    itemIds: [...itemIds],
    userId,
    recentItems: [...recentItems],
    context: Object.fromEntries(context),
    experimentUnit,
    forcedVariants: { ...forcedVariants },
    options: options(request),
  });
}

export function rowMessage(row: BatchRow): MessageInitShape<typeof BatchRecommendRowSchema> {
  if ("similar" in row) return { request: { case: "similar", value: similarMessage(row.similar) } };
  if ("personalize" in row) return { request: { case: "personalize", value: personalizeMessage(row.personalize) } };
  if ("related" in row) return { request: { case: "related", value: relatedMessage(row.related) } };
  return { request: { case: "recommend", value: recommendMessage(row.recommend) } };
}

function options(request: Options): MessageInitShape<typeof RecommendOptionsSchema> {
  const { snapshotId = "", maxStalenessSeconds, bypassCache = false } = request;
  return {
    pageSize: request.pageSize ?? 0,
    excludeItemIds: [...(request.excludeItemIds ?? [])],
    // Present even when empty: no candidates is not the same as every item.
    ...(request.candidateItemIds && { candidateItems: { itemIds: [...request.candidateItemIds] } }),
    ...given({ excludeSeen: request.excludeSeen, popularityWeight: request.popularityWeight }),
    searchParameters: { efSearch: request.efSearch ?? 0, exact: request.exact ?? false },
    consistency: {
      snapshotId,
      bypassCache,
      ...(maxStalenessSeconds !== undefined && { maxStaleness: durationFromMs(maxStalenessSeconds * 1e3) }),
    },
    strict: request.strict ?? false,
    explain: request.explain ?? false,
    ...(request.filter && { filter: filterMessage(request.filter) }),
    ...(request.readMask && { readMask: { paths: [...request.readMask] } }),
  };
}

function filterMessage(filter: Filter): MessageInitShape<typeof FilterSchema> {
  if ("allOf" in filter) return { kind: { case: "allOf", value: { filters: filter.allOf.map(filterMessage) } } };
  if ("anyOf" in filter) return { kind: { case: "anyOf", value: { filters: filter.anyOf.map(filterMessage) } } };
  if ("noneOf" in filter) return { kind: { case: "noneOf", value: { filters: filter.noneOf.map(filterMessage) } } };
  return { kind: { case: "condition", value: { field: filter.field, test: testOf(filter) } } };
}

type Condition = Exclude<Filter, { allOf: unknown } | { anyOf: unknown } | { noneOf: unknown }>;

function testOf(condition: Condition): NonNullable<MessageInitShape<typeof FieldConditionSchema>["test"]> {
  if ("equals" in condition) return { case: "equals", value: valueMessage(condition.equals) };
  if ("contains" in condition) return { case: "contains", value: valueMessage(condition.contains) };
  if ("exists" in condition) return { case: "exists", value: condition.exists };
  if ("oneOf" in condition) return { case: "oneOf", value: { values: condition.oneOf.map(valueMessage) } };
  const range: MessageInitShape<typeof FieldRangeSchema> = {};
  if (condition.minimum !== undefined) range.lower = { case: "minimum", value: valueMessage(condition.minimum) };
  if (condition.above !== undefined) range.lower = { case: "above", value: valueMessage(condition.above) };
  if (condition.maximum !== undefined) range.upper = { case: "maximum", value: valueMessage(condition.maximum) };
  if (condition.below !== undefined) range.upper = { case: "below", value: valueMessage(condition.below) };
  return { case: "range", value: range };
}

function valueMessage(value: Value): MessageInitShape<typeof FieldValueSchema> {
  return { kind: kindOf(value) };
}

function kindOf(value: Value) {
  switch (typeof value) {
    case "string":
      return { case: "stringValue" as const, value };
    case "number":
      return { case: "numberValue" as const, value };
    case "boolean":
      return { case: "boolValue" as const, value };
    default:
      return { case: "timeValue" as const, value: timestampFromDate(value) };
  }
}

/** Returns the answer in `response`. */
export function answerOf(response: Answer): Recommendations {
  const { recommendations: answer, servingInfo } = response;
  if (!answer) throw new TypeError("the server sent neither an answer nor an error");
  return {
    results: answer.results.map(recommendation),
    snapshotId: answer.snapshotId,
    missingIds: answer.missingIds,
    ...(answer.shortfall && { shortfall: shortfall(answer.shortfall) }),
    searchPath: word<SearchPath>(SearchPathSchema, answer.searchPath),
    ...given({ selectivity: answer.selectivity, userImpact: answer.userImpact }),
    ...(answer.placement && { placement: placement(answer.placement) }),
    attributionToken: servingInfo?.attributionToken ?? "",
    stageSeconds: Object.fromEntries(
      (servingInfo?.stageDurations ?? []).map(({ stage, duration }) => [stage, seconds(duration)]),
    ),
    ...(servingInfo?.catalogAge && { catalogAgeSeconds: seconds(servingInfo.catalogAge) }),
    degradations: (servingInfo?.degradations ?? []).map((number) => word<Degradation>(DegradationSchema, number)),
    ...(servingInfo?.cache && {
      cache: {
        source: word<CacheSource>(CacheSourceSchema, servingInfo.cache.source),
        ageSeconds: seconds(servingInfo.cache.age),
      },
    }),
  };
}

/** Returns the answer, or the error, of each row. */
export function batchAnswersOf(response: BatchRecommendResponse): (Recommendations | AnnserveError)[] {
  return response.results.map(({ result, servingInfo }) =>
    result.case === "status"
      ? errorOfStatus(result.value)
      : answerOf({ ...(result.value && { recommendations: result.value }), ...(servingInfo && { servingInfo }) }),
  );
}

function recommendation(message: RecommendationMessage): Recommendation {
  const { itemId, score, source, explanation: parts, metadata, fallbackStep } = message;
  return {
    itemId,
    score,
    source: word<Source>(SourceSchema, source),
    ...(parts && { explanation: explanation(parts) }),
    metadata: Object.fromEntries(
      Object.entries(metadata).map(([name, { values }]) => [name, values.flatMap(valueOf)]),
    ),
    fallbackStep,
  };
}

/** Returns the value, or nothing where it is of a kind that this client does not know. */
function valueOf({ kind }: FieldValue): Value[] {
  if (kind.case === undefined) return [];
  return [kind.case === "timeValue" ? timestampDate(kind.value) : kind.value];
}

function explanation(message: ScoreExplanationMessage): ScoreExplanation {
  const { likeness, affinity, popularityContribution, userSimilarity, contextSimilarity, effects } = message;
  return {
    ...given({ likeness, affinity, popularityContribution, userSimilarity, contextSimilarity }),
    effects: effects.map(({ rule, weight }) => ({ rule, ...given({ weight }) })),
  };
}

function shortfall(message: ShortfallMessage): Shortfall {
  const { requestedCount, returnedCount, eligibleCount } = message;
  const limitingRule = word<LimitingRule>(LimitingRuleSchema, message.limitingRule);
  return { requestedCount, returnedCount, eligibleCount: Number(eligibleCount), limitingRule };
}

function placement(message: PlacementUseMessage): PlacementUse {
  const { name, version, experiment, variant, mode, suppressedReason, userContextSimilarity } = message;
  return { name, version, experiment, variant, mode, suppressedReason, ...given({ userContextSimilarity }) };
}

function seconds(duration: Duration | undefined): number {
  return duration ? durationMs(duration) / 1e3 : 0;
}

/** Returns `popular` for the number of `SOURCE_POPULAR`. */
function word<Word extends string>(kind: DescEnum, number: number): Word | "unknown" {
  return number === 0 ? "unknown" : ((kind.value[number]?.localName.toLowerCase() as Word | undefined) ?? "unknown");
}

/** Returns `fields` without those that are undefined. */
function given<Fields extends object>(fields: Fields): { [Name in keyof Fields]?: Exclude<Fields[Name], undefined> } {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as never;
}
