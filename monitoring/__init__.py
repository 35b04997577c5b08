"""What a process shows of itself over HTTP: /metrics for Prometheus and /healthz for whoever restarts it."""
