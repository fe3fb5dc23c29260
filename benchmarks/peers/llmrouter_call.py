"""One call through LLMRouter's client, as its routers make it, in an environment that has LLMRouter."""

import json
import sys
import time

from llmrouter.utils.api_calling import call_api

REQUEST = {
    "api_endpoint": sys.argv[1],
    "query": "Hello",
    "model_name": "m",
    "api_name": "m",
}
start = time.perf_counter()
got = call_api(REQUEST, api_keys_env="none")
took = round(time.perf_counter() - start, 3)
print(json.dumps({"received": got["response"], "as": "answer", "fields": sorted(got), "seconds": took}))
