"""The Faust app factory and its agents. May import :mod:`streams`, :mod:`featurestore` and :mod:`models`.

Each agent is a role of ``streamlens worker``, with a pure core, a store of its own, and a worker that runs them:

- features: ``features``, ``ingest``, ``worker`` (docs/architecture.md)
- loop: core ``sessions``, ``variants``, ``slate_lists``, ``alignment``, ``loop_part``; ``loop_steps``, ``loop_store``,
  ``loop``, ``loop_worker`` (docs/loop.md)
- reactive users of a synthetic world: core ``reactive_users``; ``reactive`` and its kin (docs/loop.md)
- monitors: core ``monitor``, ``measures``, ``rule_windows``, ``detectors``, ``foresight``, ``taste_book``,
  ``thresholds``, ``retrain_decision``; ``day_log``, ``monitor_ingest``, ``monitors``, ``monitors_worker``
  (docs/monitoring.md). ``run_monitor`` has a monitor of each variant, ``drift_twin`` the alerts without the drift
- trainer: core ``jobs``, ``promotion_gates``, ``registry_decision``; ``job_store``, ``training_job`` (the child
  process), ``job_answer``, ``training_supervisor``, ``trainer`` (docs/training.md)

What they share: ``store_app`` (a Faust app that goes on from its store), ``store_thread``, ``beside``, ``outbox``.
"""
