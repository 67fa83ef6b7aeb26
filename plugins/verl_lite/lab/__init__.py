"""The offline tools over rollout records: score, diff, check, attack, report. No torch."""
