// All tests, one after the other: they share two cores with the browser and the process under test.

import "./login.mjs";
import "./live.mjs";
import "./rollback.mjs";
import "./actions.mjs";
import "./runbook.mjs";
import "./cluster.mjs";
import "./keyboard.mjs";
import "./access.mjs";
import "./size.mjs";
