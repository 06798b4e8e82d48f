"""Statements about detections, table `assertions`: by people and by filters, and what views show in consequence."""
