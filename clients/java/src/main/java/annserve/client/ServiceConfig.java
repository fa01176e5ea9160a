package annserve.client;

import com.google.gson.Gson;
import com.google.gson.reflect.TypeToken;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * Deadlines and retries, as the server's project ships them for clients in every language.
 *
 * <p>Timeouts are given with each call: one of the config would cut short calls that are allowed to take longer.
 */
final class ServiceConfig {
  /** What is left of the service config without its timeouts. */
  static final Map<String, ?> RETRIES;

  private static final Map<String, Duration> TIMEOUTS = new HashMap<>();

  static {
    Map<String, ?> config = shipped();
    @SuppressWarnings("unchecked")
    List<Map<String, ?>> entries = (List<Map<String, ?>>) config.get("methodConfig");
    for (Map<String, ?> entry : entries) {
      @SuppressWarnings("unchecked")
      Map<String, String> name = ((List<Map<String, String>>) entry.get("name")).get(0);
      // "0.3s" is PT0.3S in ISO 8601.
      TIMEOUTS.put(name.getOrDefault("method", ""), Duration.parse("PT" + entry.remove("timeout")));
    }
    RETRIES = config;
  }

  private ServiceConfig() {}

  /** Returns how long calls of {@code method} may take, "" for those without an entry of their own. */
  static Duration timeoutOf(String method) {
    return TIMEOUTS.get(method);
  }

  private static Map<String, ?> shipped() {
    try (InputStream file = ServiceConfig.class.getResourceAsStream("/annserve/v1/service_config.json")) {
      InputStreamReader text = new InputStreamReader(file, StandardCharsets.UTF_8);
      return new Gson().fromJson(text, new TypeToken<Map<String, ?>>() {}.getType());
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
  }
}
