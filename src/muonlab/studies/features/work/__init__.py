"""The jobs of the feature study: pretrain, measure, transfer. Each ends in a result.json that the study reads."""
