"""Live streams looked at by a model: alerts, labels and anomaly scores."""
