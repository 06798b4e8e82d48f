"""Move traffic from one model version to another without dropping a request or mixing versions in a response.

`<models>/<name>/aliases.json` is the wanted state, `<models>/<name>/.rollout/state.json` what serves. One operator in
each host reconciles them; every operation is recorded (`operations.py`).

Rollout          the steps of one operation: prove, load, write, switch (`steps.py`)
RolloutOperator  accepts operations, runs their steps, follows aliases.json, keeps proofs (`operator.py`)
RolloutHost      what the operator needs of its host: replicas, and processes for proofs; implemented by `RayHost` of a
                 cluster and `EmbeddedHost` of one process
RolloutActor     the operator of a cluster, as a Ray actor (`serve/cluster/rollout_actor.py`)
RolloutClient    calls the operator of its host, from the routes and the loads of a replica (`client.py`)
"""
