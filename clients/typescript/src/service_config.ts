/** Deadlines and retries, as the server's project ships them for clients in every language. */

import { serviceConfig } from "./gen/service_config.js";

interface ServiceConfig {
  methodConfig: { name: { method?: string }[]; timeout?: string }[];
}

const shipped = JSON.parse(serviceConfig) as ServiceConfig;

/**
 * The service config with retries alone. Timeouts are given with each call instead: one of the config would cut short
 * calls that are allowed to take longer.
 */
export const retryConfig = JSON.stringify({
  ...shipped,
  methodConfig: shipped.methodConfig.map(({ timeout: _, ...entry }) => entry),
});

/** Returns how long calls of `method` may take: by its own entry, or that of all others. */
export function shippedTimeoutMs(method: string): number {
  const find = (name: string | undefined) => shipped.methodConfig.find((entry) => entry.name[0]?.method === name);
  const { timeout } = find(method) ?? find(undefined) ?? {};
  if (!timeout) throw new Error(`the service config has no timeout for ${method}`);
  return Number.parseFloat(timeout) * 1e3;
}
