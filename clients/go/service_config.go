package annserve

import (
	_ "embed"
	"encoding/json"
	"time"
)

// Deadlines and retries, as the server's project ships them for clients in every language.
//
//go:embed annservev1/service_config.json
var shippedConfig []byte

// The service config with retries alone. Timeouts are given with each call instead: one of the config would cut short
// calls whose context allows them to take longer. They are kept by method, "" for those without an entry.
var retryConfig, shippedTimeouts = split(shippedConfig)

func split(shipped []byte) (string, map[string]time.Duration) {
	var config map[string]any
	must(json.Unmarshal(shipped, &config))
	timeouts := map[string]time.Duration{}
	for _, entry := range config["methodConfig"].([]any) {
		entry := entry.(map[string]any)
		name := entry["name"].([]any)[0].(map[string]any)
		method, _ := name["method"].(string)
		timeout, err := time.ParseDuration(entry["timeout"].(string))
		must(err)
		timeouts[method] = timeout
		delete(entry, "timeout")
	}
	retries, err := json.Marshal(config)
	must(err)
	return string(retries), timeouts
}

// The file is part of the package, so it is as the package's own test found it.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
