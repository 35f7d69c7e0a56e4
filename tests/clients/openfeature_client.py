"""An application that asks for flags by the OpenFeature SDK and its OFREP provider, as others wrote them.

Arguments: the URL, the token. Reads one question a line: {"flag", "kind", "default", "key", "context"};
answers one line each: {"value", "variant", "reason", "error"}.
"""

import json
import sys

from openfeature import api
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext

url, token = sys.argv[1:3]
headers = {"Authorization": f"Bearer {token}"}
api.set_provider(OFREPProvider(url, headers_factory=lambda: headers))
client = api.get_client()

for line in sys.stdin:
    question = json.loads(line)
    context = EvaluationContext(question.get("key"), question.get("context", {}))
    ask = getattr(client, f"get_{question['kind']}_details")
    details = ask(question["flag"], question["default"], context)
    answer = {
        "value": details.value,
        "variant": details.variant,
        "reason": details.reason and str(getattr(details.reason, "value", details.reason)),
        "error": details.error_code and details.error_code.value,
    }
    print(json.dumps(answer), flush=True)
