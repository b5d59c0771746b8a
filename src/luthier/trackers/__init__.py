"""Where a run is shown beside its own folder: TensorBoard, W&B, MLflow, trackio, SwanLab."""
