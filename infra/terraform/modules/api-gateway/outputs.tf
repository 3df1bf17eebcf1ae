output "api_endpoint" {
  description = "Default endpoint."
  value       = aws_apigatewayv2_api.this.api_endpoint
}

output "api_id" {
  description = "For the mapping to a custom domain."
  value       = aws_apigatewayv2_api.this.id
}
