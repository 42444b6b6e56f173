-- What wrk sends, $BODY, and how it reports: one line of JSON, milliseconds, right answers a second.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = os.getenv("BODY")

function done(summary, latency)
  local errors = summary.errors
  local lost = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format(
    '\nRESULT {"requests_per_second":%f,"p50_ms":%f,"p95_ms":%f,"p99_ms":%f,"errors":%d}\n',
    (summary.requests - errors.status) / summary.duration * 1e6,
    latency:percentile(50) / 1000, latency:percentile(95) / 1000, latency:percentile(99) / 1000,
    errors.status + lost))
end
